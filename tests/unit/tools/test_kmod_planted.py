# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""The faults that are planted into the kernel module fit its source, and name tests that there are."""

from __future__ import annotations

import pytest
from rig.common import RigError

from kmod import kernels, planted, selftests

FAULTS = {fault.name: fault for fault in planted.all_faults()}


@pytest.mark.parametrize("name", FAULTS)
def test_the_fault_can_be_planted(name, tmp_path):
    source = planted.plant(FAULTS[name], tmp_path)
    changed = [
        path
        for path in kernels.source_files(source)
        if path.read_bytes() != (kernels.SOURCE / path.relative_to(source)).read_bytes()
    ]
    assert len(changed) == 1
    assert not list(source.rglob("*.rej"))


@pytest.mark.parametrize("name", FAULTS)
def test_the_test_that_catches_it_exists(name):
    fault = FAULTS[name]
    text = (selftests.HERE / fault.selftest.program).read_text(encoding="utf-8")
    assert fault.caught_by in text
    assert fault.selftest.only == ""  # or the kernel that is booted would not run it


def test_only_a_failure_of_that_very_test_counts():
    fault = FAULTS["missing-vet"]
    tests = [
        f"ok 1 - {fault.caught_by}: EPERM",
        "not ok 2 - something else",
        "not ok - the machine died before the end",
    ]
    assert not planted.catches(fault, tests)
    assert planted.catches(fault, [*tests, f"not ok 3 - {fault.caught_by} # success instead of EPERM"])


def test_a_patch_that_names_no_test_is_refused(tmp_path):
    patch = tmp_path / "x.patch"
    patch.write_text(
        "SPDX-License-Identifier: GPL-2.0-or-later\n\nA fault.\n\nSelftest: selftest\n---\n", encoding="utf-8"
    )
    with pytest.raises(RigError, match="does not say which test catches it"):
        planted.read(patch)


def test_a_patch_that_does_not_fit_is_refused(tmp_path):
    patch = tmp_path / "x.patch"
    patch.write_text(
        "SPDX-License-Identifier: GPL-2.0-or-later\n\nA fault.\n\nSelftest: selftest\nCaught-by: x\n---\n"
        "--- a/noiommu_use.c\n+++ b/noiommu_use.c\n@@ -1,2 +1,2 @@\n no\n-such\n+line\n",
        encoding="utf-8",
    )
    with pytest.raises(RigError, match="does not apply"):
        planted.plant(planted.read(patch), tmp_path)
