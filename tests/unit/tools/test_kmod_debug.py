# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""What the kernels made for finding bugs are configured with."""

from __future__ import annotations

from kmod import debug, kernels, selftests


def test_a_later_file_changes_what_an_earlier_one_says():
    older, newer = (debug.RECIPES[name].options() for name in (debug.SERIES, debug.CDEV))
    assert 'CONFIG_LOCALVERSION="-noiommu-debug"' in older and 'CONFIG_LOCALVERSION="-noiommu-cdev"' in newer
    assert "CONFIG_UBSAN_SANITIZE_ALL=y" in older and "CONFIG_VFIO_DEVICE_CDEV=y" in newer
    names = [line.partition("=")[0] for line in newer]
    assert "CONFIG_UBSAN_SANITIZE_ALL" not in names and len(set(names)) == len(names)
    assert {"CONFIG_KASAN=y", "CONFIG_PROVE_LOCKING=y", "CONFIG_IOMMUFD=m"} <= set(newer)


def test_no_directory_of_one_is_forgotten_for_another():
    """What compiler_root() forgets is found by the beginning of its name."""
    names = [*kernels.RELEASES, *debug.RECIPES]
    assert not [(name, other) for name in names for other in names if name != other and other.startswith(name + "-")]


def test_each_selftest_runs_on_some_kernel():
    known = {"", *kernels.RELEASES, *debug.RECIPES}
    assert {test.only for test in selftests.SELFTESTS} <= known
    assert len({(test.name, test.gic) for test in selftests.SELFTESTS}) == len(selftests.SELFTESTS)
    programs = {path.name for path in selftests.HERE.glob("*selftest.c")}
    assert {test.program for test in selftests.SELFTESTS} == programs
