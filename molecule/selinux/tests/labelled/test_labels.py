# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every file has the label of the policy, and nothing of ours was denied."""

from __future__ import annotations

import json

from denials import denials
from live import RUN, connect, on

HOST = "mike"
OURS = (
    "/dev/vfio",
    "/etc/modprobe.d",
    "/etc/noiommu",
    "/etc/security/limits.d",
    "/etc/systemd/system",
    "/etc/udev/rules.d",
    "/usr/local/lib/noiommu",
    "/usr/local/sbin",
    "/usr/src",
    "/var/lib/noiommu",
)


def test_files_have_the_policys_labels():
    there = [path for path in OURS if connect(HOST).file(path).exists]
    assert "/usr/local/lib/noiommu" in there and "/var/lib/noiommu" in there and "/dev/vfio" in there
    assert on(HOST, f"restorecon -nvR {' '.join(there)} 2>&1 | grep -i relabel || true") == ""


def test_the_program_is_labelled_as_one():
    label = on(HOST, "stat -c %C /usr/local/sbin/noiommu-verify").split(":")[2]
    assert label == "bin_t"


def test_verify_agrees():
    assert on(HOST, "noiommu-verify --json; echo $?").strip().splitlines()[-1] == "0"


def test_nothing_more_is_denied_than_without_us():
    before = set(json.loads((RUN / "baseline/denials.json").read_text(encoding="utf-8")))
    assert denials(HOST) - before == set()
