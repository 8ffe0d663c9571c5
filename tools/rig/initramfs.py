# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""A small initial RAM disk for an image of another architecture, whose own tools would take an hour to make one here.

It loads a list of modules and mounts the first partition of the rig's root disk. A guest that makes another one for a
new kernel uses the distribution's tools.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from .common import RigError

ROOT_DISK = "0000:00:03.0"  # where tools/rig/qemu.py puts it
INIT = f"""#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /root
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
for module in /modules/*; do /bin/busybox insmod "$module"; done
tries=0
while [ $tries -lt 300 ]; do
    for block in /sys/bus/pci/devices/{ROOT_DISK}/virtio*/block/*; do
        disk=/dev/${{block##*/}}
        if [ -b "${{disk}}1" ] && /bin/busybox mount -t ext4 -o ro "${{disk}}1" /root; then
            /bin/busybox umount /dev /sys /proc
            exec /bin/busybox switch_root /root /sbin/init
        fi
    done
    tries=$((tries + 1))
    /bin/busybox sleep 0.2
done
echo "rig: no root disk at {ROOT_DISK}"
exec /bin/busybox sh
"""


def order(listed: str) -> list[str]:
    """The module files in what `modprobe --show-depends` says, each once."""
    paths = [line.split()[1] for line in listed.splitlines() if line.startswith("insmod ")]
    return list(dict.fromkeys(paths))


def make(name: str, root: Path, release: str, modules: list[str], tmp: Path) -> None:
    """Put it beside the kernel."""
    tree, busybox = tmp / "initramfs", root / "usr/bin/busybox"
    if not busybox.is_file():
        raise RigError(f"image {name} has no busybox", str(busybox), "add busybox-static to the recipe")
    shutil.rmtree(tree, ignore_errors=True)
    for folder in ("bin", "modules", "dev"):
        (tree / folder).mkdir(parents=True)
    shutil.copy(busybox, tree / "bin/busybox")
    (tree / "init").write_text(INIT, encoding="utf-8")
    (tree / "init").chmod(0o755)
    listed = "".join(
        subprocess.run(
            ["modprobe", "-d", str(root), "-S", release, "--show-depends", module],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout
        for module in modules
    )
    for number, path in enumerate(order(listed)):
        target = tree / f"modules/{number:03d}-{Path(path).name.removesuffix('.xz')}"
        if path.endswith(".xz"):
            with target.open("wb") as out:
                subprocess.run(["xz", "-dc", path], stdout=out, check=True)
        else:
            shutil.copy(path, target)
    archive = root / f"boot/initrd.img-{release}"
    pipe = 'find . | cpio --quiet -o -H newc --owner=0:0 | gzip -1 > "$0"'
    subprocess.run(["sh", "-ec", pipe, str(archive)], cwd=tree, check=True)
