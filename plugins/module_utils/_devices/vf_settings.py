# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is declared of single virtual functions: their MAC address, VLAN, trust, spoof check, rates and link state.

Settings are plain data by index: {0: {"mac": "52:54:00:12:34:56", "trust": True}}. Those that one request to the kernel
sets together (GROUPS) are always complete.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Iterable, Iterator, Mapping

from .._base.errors import HostError
from .._base.schema import Problem, expected
from .._host.virtual_functions import GROUPS, LINK_STATES, PROTOCOLS
from .forms import is_mac, parse_indexes, plain_mac, texts

Settings = Dict[str, Any]  # of one virtual function

ELEMENT_SPEC: dict[str, Any] = {
    "type": "list",
    "elements": "dict",
    "options": {
        "vf": {"type": "list", "elements": "str"},
        "mac": {"type": "str"},
        "vlan": {"type": "int"},
        "qos": {"type": "int"},
        "vlan_protocol": {"type": "str", "choices": list(PROTOCOLS)},
        "trust": {"type": "bool"},
        "spoof_check": {"type": "bool"},
        "min_tx_rate": {"type": "int"},
        "max_tx_rate": {"type": "int"},
        "link_state": {"type": "str", "choices": list(LINK_STATES)},
    },
    "required_by": {"qos": ["vlan"], "vlan_protocol": ["vlan"]},
}
KEYS = tuple(key for group in GROUPS for key in group)
NO_MAC = "00:00:00:00:00:00"
# What a group has where only some of it is declared, and what most drivers begin with.
_USUAL = {"qos": 0, "vlan_protocol": "802.1Q", "min_tx_rate": 0, "max_tx_rate": 0}
_INITIAL = {**_USUAL, "mac": NO_MAC, "vlan": 0, "trust": False, "link_state": "auto"}
# At these, drivers reset the virtual function: what drives it then must not be running.
RESETTING = {"mac", "vlan", "qos", "vlan_protocol", "trust"}
# Without these a virtual function works, and is nobody else.
BENIGN = {"min_tx_rate", "max_tx_rate", "link_state"}
_RATES = ("min_tx_rate", "max_tx_rate")
_HIGHEST = {"vlan": 4094, "qos": 7, "min_tx_rate": 2**32 - 1, "max_tx_rate": 2**32 - 1}


# --- what is declared ---


def declared_settings(entries: Iterable[Mapping[str, Any]], number: int) -> dict[int, Settings]:
    """Return what is declared, by the index of the virtual function. The entries must be right."""
    found: dict[int, Settings] = {}
    for entry in entries:
        settings = {key: entry[key] for key in KEYS if entry.get(key) is not None}
        for index in parse_indexes(entry.get("vf") or [], range(number)):
            found.setdefault(index, {}).update(settings)
    return {index: _complete(settings) for index, settings in found.items()}


def _complete(settings: Settings) -> Settings:
    groups = [group for group in GROUPS if any(key in settings for key in group)]
    found = {key: settings.get(key, _USUAL.get(key)) for group in groups for key in group}
    if "mac" in found:
        found["mac"] = plain_mac(str(found["mac"]))
    if found.get("vlan") == 0 and found["qos"] == 0:
        found["vlan_protocol"] = "802.1Q"  # there is no tag that it could be in
    return found


def problems(entries: Any, number: int, where: str) -> Iterator[Problem]:
    """Yield everything that is wrong with what is declared for the virtual functions of one physical one."""
    told: dict[tuple[int, str], str] = {}
    rates: dict[int, dict[str, int]] = {}
    for position, entry in enumerate(entries):
        here = "%s[%d]" % (where, position)
        given = [key for key in KEYS if entry.get(key) is not None]
        if not given:
            yield Problem(here, "sets nothing; there are " + ", ".join(KEYS))
        yield from _wrong_values(entry, here)
        try:
            chosen = parse_indexes(texts(entry.get("vf")), range(number))
        except HostError as exc:
            yield Problem(here + ".vf", exc.message + " Expected %s." % exc.evidence[0].partition(" ")[2])
            continue
        for index in [index for index in chosen if index >= number]:
            yield Problem(here + ".vf", "there is no virtual function %d: vfs is %d" % (index, number))
        if len(chosen) > 1 and "mac" in given:
            yield Problem(here + ".mac", "is one address for %d virtual functions" % len(chosen))
        for index, key in ((index, key) for index in chosen for key in given):
            if told.setdefault((index, key), here) != here:
                earlier = told[index, key]
                yield Problem("%s.%s" % (here, key), "%s sets it for virtual function %d as well" % (earlier, index))
            if key in _RATES:
                rates.setdefault(index, {})[key] = int(entry[key])
    yield from _wrong_rates({told[index, _RATES[0]]: both for index, both in rates.items() if len(both) == 2})


def _wrong_rates(declared: Mapping[str, Mapping[str, int]]) -> Iterator[Problem]:
    for where, rates in declared.items():
        low, high = (rates[key] for key in _RATES)
        if high and low > high:
            yield Problem(where + ".min_tx_rate", "%d is more than max_tx_rate, which is %d" % (low, high))


def _wrong_values(entry: Mapping[str, Any], where: str) -> Iterator[Problem]:
    for key, highest in _HIGHEST.items():
        if entry.get(key) is not None and not 0 <= int(entry[key]) <= highest:
            yield expected("a whole number from 0 to %d" % highest, entry[key], "%s.%s" % (where, key))
    if entry.get("mac") is not None:
        yield from _wrong_mac(entry["mac"], where + ".mac")


def _wrong_mac(value: Any, where: str) -> Iterator[Problem]:
    mac = plain_mac(value)
    if not is_mac(mac):
        yield expected("a MAC address such as 52:54:00:12:34:56", value, where)
    elif mac == NO_MAC:
        yield Problem(where, "%s is no address" % mac)
    elif int(mac[:2], 16) & 1:
        yield Problem(where, "%s is a multicast address: the first byte must be even" % mac)


def repeated_macs(declared: Iterable[tuple[str, Mapping[int, Settings]]]) -> list[str]:
    """Say which MAC addresses are declared more than once; ``declared`` has a name for each physical function."""
    owners: dict[str, list[str]] = {}
    for name, functions in declared:
        for index, settings in functions.items():
            if "mac" in settings:
                owners.setdefault(settings["mac"], []).append("virtual function %d of %s" % (index, name))
    return ["%s: %s" % (mac, ", ".join(names)) for mac, names in owners.items() if len(names) > 1]


# --- what is to do ---


def differences(wanted: Mapping[int, Settings], now: Mapping[int, Settings]) -> dict[int, Settings]:
    """Return what must be set, whole groups only."""
    found: dict[int, Settings] = {}
    for index, settings in sorted(wanted.items()):
        there = now.get(index, {})
        for group in groups_of(settings):
            if any(there.get(key) != settings[key] for key in group):
                found.setdefault(index, {}).update({key: settings[key] for key in group})
    return found


def groups_of(settings: Settings) -> list[tuple[str, ...]]:
    """Return the groups that are among these settings."""
    return [group for group in GROUPS if group[0] in settings]


def remarkable(settings: Settings) -> Settings:
    """Return the groups that a new virtual function would not have by itself. Each driver checks or not as it likes."""
    return {
        key: settings[key]
        for group in GROUPS
        for key in group
        if None not in [settings[name] for name in group]
        and any(name not in _INITIAL or settings[name] != _INITIAL[name] for name in group)
    }


def select(settings: Mapping[int, Settings], keep: Callable[[int, tuple[str, ...]], bool]) -> dict[int, Settings]:
    """Return the groups of each virtual function that are to be kept."""
    kept = {
        index: {key: one[key] for group in groups_of(one) if keep(index, group) for key in group}
        for index, one in settings.items()
    }
    return {index: one for index, one in kept.items() if one}


def merged(first: Mapping[int, Settings], second: Mapping[int, Settings]) -> dict[int, Settings]:
    """Return both; the second one has its way."""
    return {index: {**first.get(index, {}), **second.get(index, {})} for index in sorted({*first, *second})}


def in_words(settings: Settings) -> str:
    """Return settings as one line shows them."""
    return ", ".join("%s %s" % (key, _shown(settings[key])) for key in KEYS if key in settings)


def _shown(value: Any) -> str:
    if value is None:
        return "not known"
    return ("off", "on")[value] if isinstance(value, bool) else str(value)


# --- records, whose keys are text ---


def to_record(settings: Mapping[int, Settings]) -> dict[str, Settings]:
    """Return settings as a record keeps them."""
    return {str(index): dict(one) for index, one in sorted(settings.items())}


def from_record(record: Mapping[str, Any]) -> dict[int, Settings]:
    """Return the settings in a record."""
    return {int(index): dict(one) for index, one in record.get("functions", {}).items()}
