# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What udev itself makes of the rules: it runs here on a /sys of its own, in a mount namespace."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._access import files
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.paths import ORIGINALS
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.records import dump_json

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, ("udevadm", "unshare"))), reason="needs root and udevadm"
)

OURS, OTHERS = "0000:00:04.0", "0000:00:05.0"
# With a /dev of its own, too: even its test mode makes links there.
_SCRIPT = """
set -e
mount --make-rprivate /
touch %(work)s/null
mount --bind /dev/null %(work)s/null
mount -t tmpfs none /dev
touch /dev/null
mount --move %(work)s/null /dev/null
for folder in /sys /run /var/lib /etc/udev /lib/udev; do mkdir -p $folder; mount -t tmpfs none $folder; done
mkdir -p /etc/udev/rules.d /lib/udev/rules.d $(dirname %(path)s) /sys/bus /sys/class/vfio /sys/class/misc
cp %(work)s/originals.json %(path)s
cp %(work)s/60.rules /etc/udev/rules.d/
mkdir -p /sys/kernel/iommu_groups/%(group)s/devices/%(address)s /sys/devices/virtual/%(name)s
cd /sys/devices/virtual/%(name)s
printf 'MAJOR=511\\nMINOR=1\\nDEVNAME=noiommu-test\\n' > uevent
ln -s ../../../../class/%(subsystem)s subsystem
SYSTEMD_DEVICE_VERIFY_SYSFS=0 udevadm test --action=add $PWD 2>&1
"""


def given(tmp_path: Path, name: str, address: str) -> tuple[str | None, str | None]:
    """Return the group's number and the mode that udev gives to a device with this group's node."""
    (tmp_path / "60.rules").write_text(files.udev_rules("disk"))
    record = {"driver": "e1000e", "vf": {"pf": OTHERS}}
    (tmp_path / "originals.json").write_text(dump_json({"devices": {OURS: record}, "sriov": {}}))
    words = {
        "path": ORIGINALS,
        "work": tmp_path,
        "name": name,
        "subsystem": name.partition("/")[0],
        "group": re.sub(r".*\D", "", name),
        "address": address,
    }
    done = subprocess.run(["unshare", "-m", "sh", "-c", _SCRIPT % words], capture_output=True, text=True, check=True)
    found = [re.search(r"60\.rules:\d+ %s (\d+)$" % key, done.stdout, re.MULTILINE) for key in ("GROUP", "MODE")]
    return tuple(match.group(1) if match else None for match in found)  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("name", "address", "group", "mode"),
    [
        ("vfio/7", OURS, "6", "0660"),
        ("vfio/noiommu-7", OURS, "6", "0660"),
        ("vfio/123", OURS, "6", "0660"),
        # It is on record, too, but as what the other one is a virtual function of.
        ("vfio/7", OTHERS, None, None),
        ("vfio/7", "0000:00:04.1", None, None),
        ("vfio/7", "", None, None),
        ("misc/noiommu", OTHERS, "6", "0660"),
        ("misc/vfio", OTHERS, None, "0666"),
        ("misc/fuse", OURS, None, None),
    ],
)
def test_udev_gives_the_group_our_nodes_and_no_others(
    tmp_path: Path, name: str, address: str, group: str | None, mode: str | None
) -> None:
    assert given(tmp_path, name, address) == (group, mode)
