# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""A VFIO client: takes a device through a type1 container, tries DMA mappings, and prints what happened as JSON.

Runs on the managed host with the standard library of Python 3.8. Needs one free huge page of 2 MiB. Exit status 0 means
that the report is complete, whatever is in it; 2 means that it could not be made.

    vfio_client.py 0000:01:00.0
    vfio_client.py --drop-rawio 0000:01:00.0     claim it without CAP_SYS_RAWIO
    vfio_client.py --hold 0000:01:00.0           print the report, then keep the device until standard input closes
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import fcntl
import json
import mmap
import os
import re
import struct
import sys
from typing import Any, Callable

PAGE = 4096
HUGE = 2 << 20
MAP_HUGETLB = 0x40000
CAP_SYS_RAWIO = 17
PR_CAPBSET_DROP = 24
PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
CAPABILITY_VERSION_3 = 0x20080522


def _vfio(number: int) -> int:
    return (ord(";") << 8) + 100 + number  # _IO(VFIO_TYPE, VFIO_BASE + number)


GET_API_VERSION, CHECK_EXTENSION, SET_IOMMU = _vfio(0), _vfio(1), _vfio(2)
GROUP_GET_STATUS, GROUP_SET_CONTAINER, GROUP_GET_DEVICE_FD = _vfio(3), _vfio(4), _vfio(6)
DEVICE_GET_INFO, DEVICE_GET_REGION_INFO, DEVICE_GET_IRQ_INFO = _vfio(7), _vfio(8), _vfio(9)
IOMMU_MAP_DMA, IOMMU_UNMAP_DMA = _vfio(13), _vfio(14)
TYPE1V2_IOMMU = 3
GROUP_FLAGS_VIABLE = 1
MAP_READ_WRITE = 3
REGIONS = ("bar0", "bar1", "bar2", "bar3", "bar4", "bar5", "rom", "config", "vga")
IRQS = ("intx", "msi", "msix", "err", "req")

libc = ctypes.CDLL(None, use_errno=True)


class CapHeader(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class CapData(ctypes.Structure):
    _fields_ = [("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32)]


def _check(ret: int, what: str) -> None:
    if ret < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def drop_capability(cap: int) -> None:
    """Take a capability out of the bounding set and of all sets of this process."""
    _check(libc.prctl(PR_CAPBSET_DROP, cap, 0, 0, 0), "prctl(PR_CAPBSET_DROP)")
    _check(libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), "prctl(PR_CAP_AMBIENT)")
    header = CapHeader(CAPABILITY_VERSION_3, 0)
    data = (CapData * 2)()
    _check(libc.capget(ctypes.byref(header), data), "capget")
    entry, keep = data[cap // 32], ~(1 << cap % 32) & 0xFFFFFFFF
    entry.effective &= keep
    entry.permitted &= keep
    entry.inheritable &= keep
    _check(libc.capset(ctypes.byref(header), data), "capset")


def taint() -> int:
    with open("/proc/sys/kernel/tainted", encoding="ascii") as file:
        return int(file.read())


def physical_address(virtual: int) -> int:
    with open("/proc/self/pagemap", "rb", buffering=0) as file:
        (entry,) = struct.unpack("=Q", os.pread(file.fileno(), 8, virtual // PAGE * 8))
    frame = entry & ((1 << 55) - 1)
    if not frame:
        raise OSError(errno.EPERM, "pagemap hides physical addresses: CAP_SYS_ADMIN is needed")
    return frame * PAGE + virtual % PAGE


class Report:
    """Steps in order, each with its result."""

    def __init__(self, address: str) -> None:
        self.data: dict[str, Any] = {"address": address, "taint_before": taint(), "steps": []}

    def step(self, name: str, action: Callable[[], Any], **details: Any) -> Any:
        """Run an action; its value, or None if it failed."""
        entry: dict[str, Any] = {"step": name, "ok": True, "errno": 0, "error": "", **details}
        value = None
        try:
            value = action()
        except OSError as exc:
            number = exc.errno or 0
            entry.update(ok=False, errno=number, error=errno.errorcode.get(number, str(number)))
        self.data["steps"].append(entry)
        return value if entry["ok"] else None

    def ok(self) -> bool:
        """Whether the last step succeeded."""
        return bool(self.data["steps"][-1]["ok"])


def ioctl(fd: int, request: int, buffer: bytearray) -> bytearray:
    """The buffer as the kernel left it."""
    fcntl.ioctl(fd, request, buffer, True)
    return buffer


def open_device(group: int, address: str) -> int:
    return fcntl.ioctl(group, GROUP_GET_DEVICE_FD, bytearray(address.encode() + b"\0"), True)


def dma_map(container: int, virtual: int, iova: int, size: int) -> None:
    ioctl(container, IOMMU_MAP_DMA, bytearray(struct.pack("=IIQQQ", 32, MAP_READ_WRITE, virtual, iova, size)))


def dma_unmap(container: int, iova: int, size: int) -> int:
    """How many bytes were unmapped."""
    reply = ioctl(container, IOMMU_UNMAP_DMA, bytearray(struct.pack("=IIQQ", 24, 0, iova, size)))
    return int(struct.unpack("=IIQQ", reply)[3])


def device_info(device: int) -> dict[str, Any]:
    request = bytearray(struct.pack("=IIIII", 20, 0, 0, 0, 0))
    _argsz, flags, regions, irqs, _cap_offset = struct.unpack("=IIIII", ioctl(device, DEVICE_GET_INFO, request))
    info: dict[str, Any] = {"flags": flags, "num_regions": regions, "num_irqs": irqs, "regions": {}, "irqs": {}}
    for index, name in enumerate(REGIONS[:regions]):
        request = bytearray(struct.pack("=IIIIQQ", 32, 0, index, 0, 0, 0))
        try:
            info["regions"][name] = struct.unpack("=IIIIQQ", ioctl(device, DEVICE_GET_REGION_INFO, request))[4]
        except OSError:  # a device without that region
            info["regions"][name] = 0
    for index, name in enumerate(IRQS[:irqs]):
        request = bytearray(struct.pack("=IIII", 16, 0, index, 0))
        try:
            info["irqs"][name] = struct.unpack("=IIII", ioctl(device, DEVICE_GET_IRQ_INFO, request))[3]
        except OSError:
            info["irqs"][name] = 0
    return info


def mappings(report: Report, container: int) -> None:
    """Map a huge page at its own address, and at addresses that are not its own."""
    memory = report.step("hugepage", lambda: mmap.mmap(-1, HUGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_HUGETLB))
    if memory is None:
        return
    memory[0] = 1  # fault it in
    view = ctypes.c_char.from_buffer(memory)
    virtual = ctypes.addressof(view)
    physical = report.step("pagemap", lambda: physical_address(virtual))
    if physical is not None:
        report.data["physical"] = hex(physical)
        tries = {
            "map_physical": physical,
            "map_next_huge_page": physical + HUGE,
            "map_next_page": physical + PAGE,
            "map_low": 0x1000,
            "map_zero": 0,
            "map_virtual": virtual,
            "map_high_bit": physical | 1 << 40,
            "map_top_bit": physical | 1 << 63,
            "map_misaligned": physical + 1,
        }
        for name, iova in tries.items():
            report.step(name, lambda iova=iova: dma_map(container, virtual, iova, HUGE), iova=hex(iova))
            if report.ok():
                report.step(f"un{name}", lambda iova=iova: dma_unmap(container, iova, HUGE), iova=hex(iova))
    del view
    memory.close()


def run(address: str, drop_rawio: bool) -> dict[str, Any]:
    report = Report(address)
    try:
        group_number = os.path.basename(os.readlink(f"/sys/bus/pci/devices/{address}/iommu_group"))
    except FileNotFoundError as exc:
        raise OSError(f"{address} is not there, or has no IOMMU group: {exc.filename} does not exist") from exc
    report.data["group"] = int(group_number)
    try:
        with open(f"/sys/kernel/iommu_groups/{group_number}/name", encoding="ascii") as file:
            report.data["group_name"] = file.read().strip()
    except OSError:  # groups of a hardware IOMMU have none
        report.data["group_name"] = ""

    container = report.step("open_container", lambda: os.open("/dev/vfio/vfio", os.O_RDWR | os.O_CLOEXEC))
    group = report.step("open_group", lambda: os.open(f"/dev/vfio/{group_number}", os.O_RDWR | os.O_CLOEXEC))
    if container is not None and group is not None:
        report.data["api_version"] = fcntl.ioctl(container, GET_API_VERSION)
        report.data["type1v2"] = bool(fcntl.ioctl(container, CHECK_EXTENSION, TYPE1V2_IOMMU))
        status = ioctl(group, GROUP_GET_STATUS, bytearray(struct.pack("=II", 8, 0)))
        report.data["viable"] = bool(struct.unpack("=II", status)[1] & GROUP_FLAGS_VIABLE)
        if drop_rawio:
            report.step("drop_rawio", lambda: drop_capability(CAP_SYS_RAWIO))
        report.step("set_container", lambda: ioctl(group, GROUP_SET_CONTAINER, bytearray(struct.pack("=i", container))))
        report.step("set_iommu", lambda: fcntl.ioctl(container, SET_IOMMU, TYPE1V2_IOMMU))
        report.data["taint_attached"] = taint()
        if report.ok():
            device = report.step("open_device", lambda: open_device(group, address))
            if device is not None:
                report.data["device"] = report.step("device_info", lambda: device_info(device))
            mappings(report, container)
    report.data["taint_after"] = taint()
    return report.data


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address", help="PCI address of a device that vfio-pci has")
    parser.add_argument("--drop-rawio", action="store_true", help="give up CAP_SYS_RAWIO before claiming it")
    parser.add_argument("--hold", action="store_true", help="keep the device until standard input closes")
    args = parser.parse_args()
    if not re.fullmatch(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-1][0-9a-f]\.[0-7]", args.address):
        parser.error(f"{args.address!r} is not a PCI address like 0000:01:00.0")
    try:
        report = run(args.address, args.drop_rawio)
    except OSError as exc:
        print(f"vfio_client.py: {exc}", file=sys.stderr)
        return 2
    json.dump(report, sys.stdout)
    print(flush=True)
    if args.hold:  # the descriptors stay open until this process ends
        sys.stdin.buffer.read()
    return 0


if __name__ == "__main__":
    sys.exit(main())
