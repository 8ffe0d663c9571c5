# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is wrong with the entries of a device list on any host."""

from __future__ import annotations

from typing import Any, Callable, Iterator, Mapping, Sequence

from .._base.errors import HostError
from .._base.schema import Problem, refused
from .._host.pci import normalise_bdf
from .._policy.write_combining import parse_bars
from .forms import is_mac, parse_addresses, parse_indexes, parse_mac, parse_vendor_device, texts


def _parse_pf(value: str) -> None:
    # An interface may have any name; what has a colon is an address of some kind.
    if ":" in value and not is_mac(value):
        normalise_bdf(value)


_FORMS: dict[str, Callable[[Any], Any]] = {
    "address": parse_addresses,
    "vendor_device": parse_vendor_device,
    "subsystem": parse_vendor_device,
    "mac": parse_mac,
    "pf": _parse_pf,
}


def problems(entries: Sequence[Mapping[str, Any]], where: str) -> Iterator[Problem]:
    """Yield what no host can have. That the entries fit their argument specification was checked before."""
    for number, entry in enumerate(entries):
        place = "%s[%d]" % (where, number)
        for key, parse in _FORMS.items():
            if entry.get(key) is not None:
                yield from _problem("%s.%s" % (place, key), parse, str(entry[key]))
        yield from _problem(place + ".vf", parse_indexes, texts(entry.get("vf")))
        yield from _problem(place + ".write_combining", parse_bars, texts(entry.get("write_combining")))
        for key, least in (("count", 1), ("vfs", 0)):
            if entry.get(key) is not None and int(entry[key]) < least:
                yield Problem("%s.%s" % (place, key), "expected a number from %d, found %s" % (least, entry[key]))


def _problem(place: str, parse: Callable[[Any], Any], value: Any) -> Iterator[Problem]:
    try:
        parse(value)
    except HostError as exc:
        yield refused(exc, place)
