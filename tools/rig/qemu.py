# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""QEMU: its command line, the processes that are ours, and its monitor."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .common import RigError
from .spec import Machine, Nic

# A plain model with what stock kernels and DPDK ask for; `-cpu max` emulates much that only costs time. Without
# cmpxchg16b: with it, under QEMU 7.2, the cloud flavour of Linux 6.12 panics at each boot in kmem_cache_alloc, just
# after that instruction and with processor flags that it cannot have left.
TCG = [
    "-accel",
    "tcg,thread=multi,tb-size=512",
    "-cpu",
    "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt,+pdpe1gb,+rdtscp,+rdrand,-cx16,-svm",
]
KVM = ["-accel", "kvm", "-cpu", "host"]
TCG_ARM64 = ["-accel", "tcg,thread=multi,tb-size=512", "-cpu", "cortex-a72"]


OVMF = "/usr/share/OVMF"
AAVMF = "/usr/share/AAVMF"


def firmware(machine: Machine) -> tuple[str, str] | None:
    """The firmware's code and the template of its variables, if the machine is not one with a BIOS."""
    if machine.architecture == "arm64":
        return f"{AAVMF}/AAVMF_CODE.fd", f"{AAVMF}/AAVMF_VARS.fd"
    return {
        "uefi": (f"{OVMF}/OVMF_CODE_4M.fd", f"{OVMF}/OVMF_VARS_4M.fd"),
        "secureboot": (f"{OVMF}/OVMF_CODE_4M.secboot.fd", f"{OVMF}/OVMF_VARS_4M.ms.fd"),
    }.get(machine.firmware)


def _processor(machine: Machine, accel: str) -> list[str]:
    """The chipset and what runs its code."""
    if machine.architecture == "arm64":
        # This version of the interrupt controller has an ITS, which MSIs need.
        return ["-machine", "virt,gic-version=3" + (",iommu=smmuv3" if machine.iommu == "smmuv3" else ""), *TCG_ARM64]
    kind = "q35" + (",kernel-irqchip=split" if accel == "kvm" and machine.iommu == "intel" else "")
    kind += ",smm=on" if machine.firmware == "secureboot" else ""
    line = ["-machine", kind, *(KVM if accel == "kvm" else TCG)]
    if machine.vendor:
        line[-1] += f",vendor={machine.vendor}"
    return line


def board(machine: Machine, accel: str) -> list[str]:
    """The chipset, its processors and memory, and the firmware."""
    # A kernel warns, and is tainted, where the cores of one socket are on several nodes.
    cores = f"{machine.cpus},sockets={machine.cpus}" if machine.numa else str(machine.cpus)
    line = [*_processor(machine, accel), "-smp", cores, "-m", str(machine.memory)]
    cpu = 0
    for number, node in enumerate(machine.numa):
        line += [
            "-object",
            f"memory-backend-ram,id=memory{number},size={node.memory}M",
            "-numa",
            f"node,nodeid={number},cpus={cpu}-{cpu + node.cpus - 1},memdev=memory{number}",
        ]
        cpu += node.cpus
    files = firmware(machine)
    if files:
        line += [
            "-drive",
            f"if=pflash,unit=0,format=raw,readonly=on,file={files[0]}",
            "-drive",
            "if=pflash,unit=1,format=raw,file=vars.fd",
        ]
    if machine.firmware == "secureboot":  # only code of the firmware itself may write to its variables
        line += ["-global", "driver=cfi.pflash01,property=secure,value=on", "-global", "ICH9-LPC.disable_s3=1"]
    numbered = machine.architecture == "amd64" and any(nic.slot is not None for nic in machine.nics)
    if numbered:  # else ACPI numbers every slot 0
        line += ["-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off"]
    return line


def devices(nic: Nic, index: int, crowded: bool, extra: str) -> list[str]:
    """The NIC, and the port that it is behind if it has a slot."""
    model = f"{nic.model},netdev=net{index},mac={nic.mac},romfile={extra}"
    if nic.slot is None:
        return ["-device", f"{model},addr={nic.addr}" + (",multifunction=on" if crowded else "")]
    return [
        "-device",
        f"pcie-root-port,id=port{nic.slot},slot={nic.slot},chassis={nic.slot},addr={nic.addr}",
        "-device",
        f"{model},bus=port{nic.slot},addr=00.0",
    ]


def command(
    machine: Machine,
    uuid: str,
    accel: str,
    ssh_port: int,
    wires: dict[int, tuple[int, int]],
    hubs: dict[int, int],
    program: Sequence[str] = ("qemu-system-x86_64",),
) -> list[str]:
    """The command line; paths in it are relative to the machine's directory.

    `wires` gives the local and the remote UDP port of a NIC whose link leads to another machine, `hubs` the hub number
    of one whose link stays inside (two sockets in one process would wait for each other). Devices have fixed addresses:
    a guest's BDFs depend on its list entry alone.
    """
    behind_iommu = {"intel": ",iommu_platform=on,ats=on", "smmuv3": ",iommu_platform=on"}
    virtio = ",disable-legacy=on" + behind_iommu.get(machine.iommu, "")
    line = [
        *program,
        "-name",
        machine.name,
        "-uuid",
        uuid,
        *board(machine, accel),
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-serial",
        "file:serial.log",
        "-qmp",
        "unix:qmp.sock,server=on,wait=off",
    ]
    if machine.iommu == "intel":  # before the devices that it is to cover
        line += ["-device", "intel-iommu,intremap=on,caching-mode=on,aw-bits=48"]
    line += [
        "-drive",
        "if=none,id=root,file=disk.qcow2,cache=unsafe,discard=unmap",
        "-device",
        f"virtio-blk-pci,drive=root,bootindex=1,addr=03.0{virtio}",
        "-netdev",
        f"user,id=management,ipv6=off,hostfwd=tcp:127.0.0.1:{ssh_port}-:22",
        "-device",
        f"virtio-net-pci,netdev=management,romfile=,addr=02.0,mac=52:54:00:00:00:02{virtio}",
        "-device",
        f"virtio-rng-pci,addr=04.0{virtio}",
    ]
    for index, disk in enumerate(machine.disks):
        extra = virtio if disk.model.startswith("virtio") else ""
        line += [
            "-drive",
            f"if=none,id=disk{index},file=disk-{index}.qcow2,cache=unsafe,discard=unmap",
            "-device",
            f"{disk.model},drive=disk{index},serial={disk.serial},addr={disk.addr}{extra}",
        ]
    crowded = {nic.device for nic in machine.nics if nic.function}
    for index, nic in enumerate(machine.nics):
        if index in wires:
            local, remote = wires[index]
            net = (
                f"dgram,id=net{index},local.type=inet,local.host=127.0.0.1,local.port={local},"
                f"remote.type=inet,remote.host=127.0.0.1,remote.port={remote}"
            )
        else:  # a hub of its own is a NIC with a plug in it and nobody at the other end
            net = f"hubport,id=net{index},hubid={hubs.get(index, 1000 + index)}"
        extra = virtio if nic.model.startswith("virtio") else ""
        line += ["-netdev", net, *devices(nic, index, nic.device in crowded, extra)]
    return line


def find(uuid: str) -> int | None:
    """Pid of the QEMU with this uuid, if it runs. The uuid is random: no other process can be mistaken for it."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                args = (entry / "cmdline").read_bytes().split(b"\0")
                # the program may be the second thing that its own loader is told
                if any(b"qemu-system" in arg for arg in args[:4]) and uuid.encode() in args:
                    return int(entry.name)
    return None


def stop(uuid: str) -> bool:
    """Kill the machine with this uuid (its disk is thrown away: no need to be gentle); whether there was one."""
    pid = find(uuid)
    if pid is None:
        return False
    for sig, patience in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 10.0)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, sig)
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)  # reap it where it is our own child
            if find(uuid) is None:
                return True
            time.sleep(0.1)
    raise RigError(f"QEMU does not die: pid {pid}", f"/proc/{pid}/cmdline still names uuid {uuid}", f"look at ps {pid}")


def monitor(directory: Path, execute: str, **arguments: Any) -> Any:
    """One QMP command. Socket paths are limited to 108 bytes: go through a descriptor of the directory."""
    handle = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(30)
            sock.connect(f"/proc/self/fd/{handle}/qmp.sock")
            lines = sock.makefile("r", encoding="utf-8")
            lines.readline()  # the greeting
            answer: dict[str, Any] = {}
            for request in ({"execute": "qmp_capabilities"}, {"execute": execute, "arguments": arguments}):
                sock.sendall(json.dumps(request).encode() + b"\n")
                answer = json.loads(lines.readline())
                while "event" in answer:
                    answer = json.loads(lines.readline())
    except (OSError, ValueError) as exc:
        raise RigError(
            f"the machine's monitor does not answer: {exc}",
            f"{directory}/qmp.sock",
            "see tools/vm status; start the machines again with tools/vm up",
        ) from exc
    finally:
        os.close(handle)
    if "error" in answer:
        raise RigError(f"QEMU refuses {execute}", answer["error"]["desc"], f"see {directory}/qemu.log")
    return answer["return"]
