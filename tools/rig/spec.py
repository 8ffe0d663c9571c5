# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""What machines are wanted: the YAML list, checked. Pure.

machines:
  - name: alpha                 # of the host, and in the inventory
    image: debian12             # a recipe of tools/images
    groups: [noiommu]           # inventory groups; `vars` are inventory variables
    vars: {}
    memory: 1024                # MiB
    cpus: 2
    numa: [{memory: 1024, cpus: 1}, {memory: 1024, cpus: 1}]  # instead of memory and cpus
    architecture: amd64         # or arm64; the image's
    iommu: none                 # or intel; on arm64 smmuv3
    vendor: GenuineIntel        # or AuthenticAMD: what an amd64 processor says; QEMU's own if left out
    firmware: bios              # or uefi, or secureboot with Microsoft's keys; see tools/vm enrol-mok. On arm64 uefi
    nics:                       # data NICs; every key may be left out
      - model: e1000e           # or virtio-net-pci, or igb, which has virtual functions and needs a slot
        addr: "10"              # 0000:00:10.0; "10.1" is its second function
        mac: "52:54:00:0a:00:00"
        link: cable0            # the two NICs that name it are wired to each other
        slot: 3                 # behind a port of its own (at addr): /sys/bus/pci/slots/3
        count: 64               # as many functions, from addr on, eight to a device
    disks:                      # empty disks
      - {model: nvme, size: 64, serial: spare, addr: "08"}    # or virtio-blk-pci; MiB
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .common import RigError

NIC_MODELS = ("e1000e", "virtio-net-pci", "igb")
DISK_MODELS = ("virtio-blk-pci", "nvme")
# The first one is what a machine has by default.
IOMMUS = {"amd64": ("none", "intel"), "arm64": ("none", "smmuv3")}
FIRMWARES = {"amd64": ("bios", "uefi", "secureboot"), "arm64": ("uefi",)}
VENDORS = {"amd64": ("AuthenticAMD", "GenuineIntel"), "arm64": ()}
FIRST_DISK, FIRST_NIC = 0x08, 0x10  # device numbers that disks and NICs get by default
FREE = range(0x05, 0x1F)  # below: the rig's own devices; above: the chipset's
FUNCTIONS = 8  # of one PCI device


@dataclass(frozen=True)
class Nic:
    """A data NIC, at 0000:00:<device>.<function>, or in a physical slot: then that is the address of the slot's port,
    and the NIC is the only device on the bus behind it."""

    model: str
    mac: str
    device: int
    function: int = 0
    slot: int | None = None
    bus: int = 0  # that of a NIC in a slot: the firmware numbers them in the order of the ports
    link: str | None = None

    @property
    def addr(self) -> str:
        """Where QEMU puts the NIC or its port on the root bus."""
        return f"{self.device:02x}.{self.function:x}"

    @property
    def address(self) -> str:
        """Where the guest sees the NIC."""
        return f"0000:00:{self.addr}" if self.slot is None else f"0000:{self.bus:02x}:00.0"


@dataclass(frozen=True)
class Disk:
    """An empty disk besides the root file system's, at 0000:00:<device>.0."""

    model: str
    size: int  # MiB
    serial: str
    device: int

    @property
    def addr(self) -> str:
        return f"{self.device:02x}.0"


@dataclass(frozen=True)
class Node:
    """A NUMA node."""

    memory: int  # MiB
    cpus: int


@dataclass(frozen=True)
class Machine:
    """One virtual machine."""

    name: str
    image: str = "debian12"
    memory: int = 1024  # MiB
    cpus: int = 2
    numa: tuple[Node, ...] = ()
    firmware: str = "bios"
    iommu: str = "none"
    architecture: str = "amd64"
    nics: tuple[Nic, ...] = ()
    disks: tuple[Disk, ...] = ()
    groups: tuple[str, ...] = ()
    vars: dict[str, Any] = field(default_factory=dict)
    vendor: str | None = None


def _bad(what: str, evidence: str, remedy: str) -> RigError:
    return RigError(f"machine list: {what}", evidence, remedy)


def _dictionary(given: Any, what: str, where: str, example: str) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise _bad(f"{what} is a dictionary", f"{where}: {given!r}", f"write {example}")
    return given


def _known(given: dict[str, Any], allowed: tuple[str, ...], where: str) -> None:
    for key in given:
        if key not in allowed:
            raise _bad(f"unknown key {key!r}", where, "use one of: " + ", ".join(allowed))


def _choice(value: Any, allowed: tuple[str, ...], where: str) -> str:
    if value not in allowed:
        raise _bad(f"{value!r} is not possible", where, "use one of: " + ", ".join(allowed))
    return value


def _number(value: Any, least: int, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise _bad(f"{value!r} is not a number of at least {least}", where, f"write a whole number, {least} or more")
    return value


def default_mac(name: str, index: int) -> str:
    """A stable address out of QEMU's range, so that identical lists give identical machines."""
    digest = hashlib.sha256(f"{name}/{index}".encode()).digest()
    return "52:54:00:" + ":".join(f"{byte:02x}" for byte in digest[:3])


def _addr(addr: Any, where: str) -> tuple[int, int]:
    """Device and function number."""
    # text only: YAML reads 10 and 0x10 as different numbers
    match = re.fullmatch(r"(?:0000:00:)?([0-9a-fA-F]{1,2})(?:\.([0-7]))?", addr) if isinstance(addr, str) else None
    device = int(match[1], 16) if match else -1
    if match is None or device not in FREE:
        raise _bad(
            f"addr {addr!r} is not a free PCI address",
            where,
            f'write a hexadecimal device number in quotes from "{FREE[0]:02x}" to "{FREE[-1]:02x}", '
            'with a function number if it has several: "10.1"',
        )
    return device, int(match[2] or 0)


def _nics(given: Any, machine: str, index: int) -> list[Nic]:
    """The NIC of one entry, or several if it has a count."""
    where = f"machine {machine}, nics[{index}]"
    given = _dictionary(given, "a NIC", where, "{model: e1000e, link: NAME}")
    _known(given, ("model", "link", "mac", "addr", "slot", "count"), where)
    mac = str(given.get("mac", default_mac(machine, index))).lower()
    if not re.fullmatch(r"[0-9a-f][02468ace](:[0-9a-f]{2}){5}", mac):
        raise _bad(
            f"{mac!r} is not a unicast MAC address", where, 'write one like "52:54:00:12:34:56", with the quotes'
        )
    device, function = _addr(given["addr"], where) if "addr" in given else (FIRST_NIC + index, 0)
    link, slot = given.get("link"), given.get("slot")
    nic = Nic(
        _choice(given.get("model", "e1000e"), NIC_MODELS, where),
        mac,
        device,
        function,
        None if slot is None else _number(slot, 1, f"{where}, slot"),
        0,
        None if link is None else str(link),
    )
    if nic.model == "igb" and slot is None:
        raise _bad(
            "an igb NIC needs a slot",
            where,
            "write slot: NUMBER; its virtual functions take addresses of its bus, so it has one to itself",
        )
    if slot is not None and function:
        raise _bad("a slot's port is a device of its own", f"{where}: addr {given['addr']!r}", "write it without .N")
    if "count" not in given:
        return [nic]
    for other in ("mac", "link", "slot"):
        if other in given:
            raise _bad(f"count and {other} do not go together", where, "write such NICs one by one")
    count = _number(given["count"], 1, f"{where}, count")
    first = device * FUNCTIONS + function
    if first + count > FREE.stop * FUNCTIONS:
        raise _bad(
            f"{count} functions do not fit behind {nic.address}", where, f'start at a lower addr, from "{FREE[0]:02x}"'
        )
    return [
        replace(
            nic, mac=default_mac(f"{machine}/{index}", number), device=place // FUNCTIONS, function=place % FUNCTIONS
        )
        for number, place in enumerate(range(first, first + count))
    ]


def _disk(given: Any, machine: str, index: int) -> Disk:
    where = f"machine {machine}, disks[{index}]"
    given = _dictionary(given, "a disk", where, "{size: 64}")
    _known(given, ("model", "size", "serial", "addr"), where)
    device, function = _addr(given["addr"], where) if "addr" in given else (FIRST_DISK + index, 0)
    serial = str(given.get("serial", f"rig-disk-{index}"))
    if function or not re.fullmatch(r"[A-Za-z0-9_-]{1,20}", serial):
        raise _bad(
            "a disk has a device of its own and a plain serial number",
            f"{where}: {given!r}",
            'write addr: "08" and up to 20 letters, digits, - and _',
        )
    return Disk(
        _choice(given.get("model", "virtio-blk-pci"), DISK_MODELS, where),
        _number(given.get("size", 64), 1, f"{where}, size"),
        serial,
        device,
    )


def _node(given: Any, machine: str, index: int) -> Node:
    where = f"machine {machine}, numa[{index}]"
    given = _dictionary(given, "a NUMA node", where, "{memory: 1024, cpus: 1}")
    _known(given, ("memory", "cpus"), where)
    return Node(
        _number(given.get("memory", 1024), 64, f"{where}, memory"), _number(given.get("cpus", 1), 1, f"{where}, cpus")
    )


def _placed(nics: list[Nic], disks: list[Disk], where: str) -> tuple[Nic, ...]:
    """The NICs with the numbers of the buses behind their ports, once nothing is in the place of another."""
    for what, values in (
        ("PCI address", [f"0000:00:{each.addr}" for each in (*nics, *disks)]),
        ("MAC address", [nic.mac for nic in nics]),
        ("slot", [str(nic.slot) for nic in nics if nic.slot is not None]),
    ):
        twice = [value for value, times in Counter(values).items() if times > 1]
        if twice:
            raise _bad(f"two devices have the same {what}", f"{where}: {', '.join(twice)}", "give each its own")
    first = {nic.device for nic in nics if nic.slot is None and not nic.function}
    for nic in nics:
        if nic.slot is None and nic.device not in first:
            raise _bad(f"no NIC is function 0 beside {nic.address}", where, "start a device at its function 0")
    ports = sorted(nic.device for nic in nics if nic.slot is not None)
    return tuple(nic if nic.slot is None else replace(nic, bus=1 + ports.index(nic.device)) for nic in nics)


def _machine(given: Any, index: int) -> Machine:
    given = _dictionary(given, "a machine", f"machines[{index}]", "{name: NAME}")
    name = str(given.get("name", ""))
    where = f"machine {name or f'machines[{index}]'}"
    _known(given, tuple(Machine.__dataclass_fields__), where)
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,62}", name):
        raise _bad(f"{name!r} is not a host name", where, "use lower case letters, digits and hyphens")
    disks = [_disk(disk, name, i) for i, disk in enumerate(given.get("disks") or ())]
    nics = _placed(
        [nic for i, entry in enumerate(given.get("nics") or ()) for nic in _nics(entry, name, i)], disks, where
    )
    groups, variables = given.get("groups") or [], given.get("vars") or {}
    if not isinstance(groups, list) or not isinstance(variables, dict):
        raise _bad(
            "groups is a list and vars is a dictionary",
            f"{where}: {groups!r}, {variables!r}",
            "write groups: [NAME] and vars: {NAME: VALUE}",
        )
    numa = tuple(_node(node, name, i) for i, node in enumerate(given.get("numa") or ()))
    if numa and {"memory", "cpus"} & given.keys():
        raise _bad("memory and cpus are those of the NUMA nodes together", where, "write them in numa only")
    architecture = _choice(given.get("architecture", "amd64"), tuple(IOMMUS), f"{where}, architecture")
    firmwares, iommus = FIRMWARES[architecture], IOMMUS[architecture]
    return Machine(
        name,
        str(given.get("image", "debian12")),
        sum(node.memory for node in numa) or _number(given.get("memory", 1024), 256, f"{where}, memory"),
        sum(node.cpus for node in numa) or _number(given.get("cpus", 2), 1, f"{where}, cpus"),
        numa,
        _choice(given.get("firmware", firmwares[0]), firmwares, f"{where}, firmware"),
        _choice(given.get("iommu", iommus[0]), iommus, f"{where}, iommu"),
        architecture,
        nics,
        tuple(disks),
        tuple(map(str, groups)),
        variables,
        _choice(given["vendor"], VENDORS[architecture], f"{where}, vendor") if "vendor" in given else None,
    )


def parse(document: Any) -> list[Machine]:
    """Check a machine list as read from YAML."""
    if not isinstance(document, dict) or not isinstance(document.get("machines"), list) or not document["machines"]:
        raise _bad("there are no machines", repr(document)[:200], "write a key 'machines' with a list of machines")
    _known(document, ("machines",), "top level")
    machines = [_machine(given, i) for i, given in enumerate(document["machines"])]
    names = [machine.name for machine in machines]
    if len(set(names)) != len(names):
        raise _bad("two machines have the same name", ", ".join(names), "give each its own name")
    links(machines)
    return machines


def links(machines: list[Machine]) -> dict[str, list[tuple[str, int]]]:
    """The two ends, (machine, NIC number), of every link."""
    ends: dict[str, list[tuple[str, int]]] = {}
    for machine in machines:
        for index, nic in enumerate(machine.nics):
            if nic.link is not None:
                ends.setdefault(nic.link, []).append((machine.name, index))
    for link, both in ends.items():
        if len(both) != 2:
            raise _bad(
                f"link {link!r} has {len(both)} end(s)",
                ", ".join(f"{name} nics[{i}]" for name, i in both),
                "name a link at exactly two NICs, or leave 'link' out for a NIC without a wire",
            )
    return ends


def load(path: Path) -> list[Machine]:
    """Read and check a machine list."""
    import yaml  # not at the top: `tools/vm deps` runs before it is installed

    try:
        return parse(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError) as exc:
        raise _bad(f"cannot read {path}", str(exc), "give the path of a YAML file") from exc
