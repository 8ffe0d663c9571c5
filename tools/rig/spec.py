# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""What machines are wanted: the YAML list, checked. Pure."""
from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .common import RigError

NIC_MODELS = ("e1000e", "virtio-net-pci")
IOMMUS = ("none", "intel")
FIRST_DATA_SLOT = 0x10
FREE_SLOTS = range(0x05, 0x1f)  # below: the rig's own devices; above: the chipset's


@dataclass(frozen=True)
class Nic:
    """A data NIC. The guest sees it at 0000:00:<slot>.0."""

    model: str
    mac: str
    slot: int
    link: str | None = None

    @property
    def address(self) -> str:
        return f"0000:00:{self.slot:02x}.0"


@dataclass(frozen=True)
class Machine:
    """One virtual machine."""

    name: str
    image: str = "debian12"
    memory: int = 1024
    cpus: int = 2
    iommu: str = "none"
    nics: tuple[Nic, ...] = ()
    groups: tuple[str, ...] = ()
    vars: dict[str, Any] = field(default_factory=dict)


def _bad(what: str, evidence: str, remedy: str) -> RigError:
    return RigError(f"machine list: {what}", evidence, remedy)


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


def _slot(addr: Any, where: str) -> int:
    # text only: YAML reads 10 and 0x10 as different numbers
    match = re.fullmatch(r"(?:0000:00:)?([0-9a-fA-F]{1,2})(?:\.0)?", addr) if isinstance(addr, str) else None
    slot = int(match[1], 16) if match else -1
    if slot not in FREE_SLOTS:
        raise _bad(f"addr {addr!r} is not a free PCI slot", where,
                   f'write a hexadecimal slot in quotes from "{FREE_SLOTS[0]:02x}" to "{FREE_SLOTS[-1]:02x}"')
    return slot


def _nic(given: Any, machine: str, index: int) -> Nic:
    where = f"machine {machine}, nics[{index}]"
    if not isinstance(given, dict):
        raise _bad("a NIC is a dictionary", f"{where}: {given!r}", "write {model: e1000e, link: NAME}")
    _known(given, ("model", "link", "mac", "addr"), where)
    mac = str(given.get("mac", default_mac(machine, index))).lower()
    if not re.fullmatch(r"[0-9a-f][02468ace](:[0-9a-f]{2}){5}", mac):
        raise _bad(f"{mac!r} is not a unicast MAC address", where,
                   'write one like "52:54:00:12:34:56", with the quotes')
    slot = _slot(given["addr"], where) if "addr" in given else FIRST_DATA_SLOT + index
    link = given.get("link")
    return Nic(_choice(given.get("model", "e1000e"), NIC_MODELS, where), mac, slot, None if link is None else str(link))


def _machine(given: Any, index: int) -> Machine:
    if not isinstance(given, dict):
        raise _bad("a machine is a dictionary", f"machines[{index}]: {given!r}", "write {name: NAME}")
    name = str(given.get("name", ""))
    where = f"machine {name or f'machines[{index}]'}"
    _known(given, tuple(Machine.__dataclass_fields__), where)
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,62}", name):
        raise _bad(f"{name!r} is not a host name", where, "use lower case letters, digits and hyphens")
    nics = tuple(_nic(nic, name, i) for i, nic in enumerate(given.get("nics") or ()))
    for what, values in (("PCI slot", [nic.address for nic in nics]), ("MAC address", [nic.mac for nic in nics])):
        if len(set(values)) != len(values):
            raise _bad(f"two NICs have the same {what}", f"{where}: {', '.join(values)}", "give each its own")
    groups, variables = given.get("groups") or [], given.get("vars") or {}
    if not isinstance(groups, list) or not isinstance(variables, dict):
        raise _bad("groups is a list and vars is a dictionary", f"{where}: {groups!r}, {variables!r}",
                   "write groups: [NAME] and vars: {NAME: VALUE}")
    return Machine(name, str(given.get("image", "debian12")),
                   _number(given.get("memory", 1024), 256, f"{where}, memory"),
                   _number(given.get("cpus", 2), 1, f"{where}, cpus"),
                   _choice(given.get("iommu", "none"), IOMMUS, f"{where}, iommu"), nics,
                   tuple(map(str, groups)), variables)


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
            raise _bad(f"link {link!r} has {len(both)} end(s)", ", ".join(f"{name} nics[{i}]" for name, i in both),
                       "name a link at exactly two NICs, or leave 'link' out for a NIC without a wire")
    return ends


def load(path: Path) -> list[Machine]:
    """Read and check a machine list."""
    import yaml  # not at the top: `tools/vm deps` runs before it is installed

    try:
        return parse(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError) as exc:
        raise _bad(f"cannot read {path}", str(exc), "give the path of a YAML file") from exc
