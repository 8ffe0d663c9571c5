# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The kernel's side of rtnetlink for the settings of virtual functions: bytes in, bytes out, as a driver's are.

It has its own tables of linux/if_link.h, so that a mistake in the collection's is none here.
"""

from __future__ import annotations

import errno
import os
import struct
from typing import Any

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.fs import Root
from ansible_collections.baremetal.noiommu.plugins.module_utils._host import vf_netlink

from .fake_kernel import Machine

NEW_LINK, GET_LINK, SET_LINK = 16, 18, 19
MAC, SPOOFCHK, LINK_STATE, RATE, TRUST, VLAN_LIST = 1, 4, 5, 6, 9, 12
NAMES = {MAC: "mac", SPOOFCHK: "spoof_check", LINK_STATE: "link_state", RATE: "rate", TRUST: "trust", VLAN_LIST: "vlan"}
UNKNOWN = 0xFFFFFFFF


class Driver:
    """The driver of all physical functions of a machine."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.refuses: dict[str, int] = {}  # by setting, the errno
        self.deaf: set[str] = set()  # settings that are taken, and nothing comes of it
        self.silent: set[str] = set()  # trust, spoof_check: not told
        self.functions: dict[tuple[str, int], dict[str, Any]] = {}  # by physical function and index
        machine.made, machine.mac_of = self.made, self._mac_of

    def made(self, pf: str, number: int) -> None:
        """Virtual functions that are made begin anew; those that went are forgotten."""
        for key in [key for key in self.functions if key[0] == pf]:
            del self.functions[key]
        for index in range(number):
            self.functions[pf, index] = {
                "mac": b"\0" * 6,
                "vlan": (0, 0, 0x8100),
                "rate": (0, 0),
                "trust": 0,
                "spoof_check": 1,
                "link_state": 0,
            }

    def _mac_of(self, address: str) -> str:
        """Return the address that the driver of a virtual function learns when it is bound."""
        owners = {
            self.machine.tree.vf_address(pf, index): state["mac"] for (pf, index), state in self.functions.items()
        }
        mac = owners.get(address, b"")
        return ":".join("%02x" % byte for byte in mac) if any(mac) else ""

    def of(self, pf: str, index: int) -> dict[str, Any]:
        """Return how a virtual function is set."""
        return self.functions[pf, index]

    def ask(self, _root: Root, kind: int, flags: int, body: bytes) -> bytes:
        """Answer a request."""
        _family, _type, ifindex, _flags, _change = struct.unpack_from("=BxHiII", body)
        pf = self._owner(ifindex)
        attributes = dict(_attributes(body[16:]))
        if kind == GET_LINK:
            assert struct.unpack("=I", attributes[29])[0] == 9 and flags == 0
            return self._answer(pf, ifindex)
        assert kind == SET_LINK and flags == 4
        for number, function in _attributes(attributes[22]):
            assert number == 1
            for setting, value in _attributes(function):
                self._set(pf, setting, value)
        return b""

    def _owner(self, ifindex: int) -> str:
        root = self.machine.root
        for name in root.listdir("/sys/class/net"):
            if root.read_int("/sys/class/net", name, "ifindex") == ifindex:
                return root.realpath("/sys/class/net", name).split("/")[-3]
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    def _set(self, pf: str, setting: int, value: bytes) -> None:
        name = NAMES[setting]
        if setting == VLAN_LIST:
            ((_one, value),) = _attributes(value)
        index = struct.unpack_from("=I", value)[0]
        self.machine.request("%s: virtual function %d: %s" % (pf, index, name))
        state = self.functions.get((pf, index))
        code = self.refuses.get(name) or (0 if state is not None else errno.EINVAL)
        if code:
            raise OSError(code, os.strerror(code))
        if name not in self.deaf:
            assert state is not None
            state[name] = self._decoded(setting, value)

    @staticmethod
    def _decoded(setting: int, value: bytes) -> Any:
        if setting == MAC:
            assert len(value) == 36
            return value[4:10]
        if setting == VLAN_LIST:
            return (*struct.unpack_from("=II", value, 4), struct.unpack_from(">H", value, 12)[0])
        if setting == RATE:
            return struct.unpack("=II", value[4:])
        return struct.unpack("=I", value[4:])[0]

    def _answer(self, pf: str, ifindex: int) -> bytes:
        listed = b"".join(
            _attribute(1, self._told(index, state))
            for (owner, index), state in sorted(self.functions.items())
            if owner == pf
        )
        body = struct.pack("=BxHiII", 0, 1, ifindex, 0x1043, 0) + _attribute(3, b"pf0\0") + _attribute(22, listed)
        return struct.pack("=IHHII", 16 + len(body), NEW_LINK, 0, 1, 1) + body

    def _told(self, index: int, state: dict[str, Any]) -> bytes:
        vlan, qos, protocol = state["vlan"]
        trust, spoof_check = (UNKNOWN if name in self.silent else state[name] for name in ("trust", "spoof_check"))
        return b"".join(
            (
                _attribute(MAC, struct.pack("=I32s", index, state["mac"])),
                _attribute(2, struct.pack("=III", index, vlan, qos)),
                _attribute(RATE, struct.pack("=III", index, *state["rate"])),
                _attribute(SPOOFCHK, struct.pack("=II", index, spoof_check)),
                _attribute(LINK_STATE, struct.pack("=II", index, state["link_state"])),
                _attribute(TRUST, struct.pack("=II", index, trust)),
                _attribute(
                    VLAN_LIST, _attribute(1, struct.pack("=III", index, vlan, qos) + struct.pack(">H2x", protocol))
                ),
            )
        )


def _attributes(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while data:
        length, kind = struct.unpack_from("=HH", data)
        found.append((kind, data[4:length]))
        data = data[(length + 3) & ~3 :]
    return found


def _attribute(kind: int, payload: bytes) -> bytes:
    return (struct.pack("=HH", 4 + len(payload), kind) + payload).ljust((7 + len(payload)) & ~3, b"\0")


def install(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Driver:
    """Have a machine answer for its virtual functions."""
    driver = Driver(machine)
    monkeypatch.setattr(vf_netlink, "_ask", driver.ask)
    return driver
