# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Requests to the driver of a physical function about the settings of its virtual ones, errors explained."""

from __future__ import annotations

import errno
import time
from typing import Mapping

from .._base.errors import HostError, errno_text
from .._base.fs import Root
from .._host.pci import NET, Interface, PciDevice
from .sriov import interface_of, read_settings
from .vf_settings import Settings, differences, groups_of, in_words

# Drivers compare rates with the speed of the link, which takes its time after the interface was set up.
_LINK_WAIT = 10.0
# Until when each interface has been waited for: once is enough for all virtual functions of a run.
_waited_until: dict[str, float] = {}
_REMEDIES = {
    errno.EOPNOTSUPP: "This driver cannot set it: remove it from functions, or use a card whose driver can.",
    errno.EPROTONOSUPPORT: "This driver knows no other vlan_protocol than 802.1Q.",
    errno.EPERM: "Run with become: true, outside of containers.",
}
_OTHER = "The driver does not take this value, or not now: a rate may need a link, and min_tx_rate is known to few."


def set_settings(root: Root, pf: PciDevice, index: int, settings: Settings) -> None:
    """Set some settings of one virtual function, whole groups of them."""
    link = interface_of(root, pf)
    if link is None or link.ifindex is None:
        raise HostError(
            "sriov",
            "Virtual function %d of %s cannot be set up: there is no interface any more." % (index, pf.address),
            evidence=["%s/net: no interface of its own" % pf.path],
            remedy="Find out what takes the interface of the physical function, and stop that.",
        )
    for group in groups_of(settings):
        _set_group(root, pf, link, index, {key: settings[key] for key in group})


def set_back(root: Root, pf: PciDevice, wanted: Mapping[int, Settings]) -> None:
    """Set what differs: a driver that refused a setting refuses the old one as well."""
    for index, settings in differences(wanted, read_settings(root, pf)).items():
        set_settings(root, pf, index, settings)


def _set_group(root: Root, pf: PciDevice, link: Interface, index: int, settings: Settings) -> None:
    # Late, as in sriov.py.
    from .._host import vf_netlink

    try:
        try:
            vf_netlink.write(root, link.ifindex or 0, index, settings)
        except OSError as exc:
            if exc.errno != errno.EINVAL or "max_tx_rate" not in settings or not _has_link(root, link.name):
                raise
            vf_netlink.write(root, link.ifindex or 0, index, settings)
    except OSError as exc:
        raise HostError(
            "sriov",
            "The driver %s did not set %s of virtual function %d of %s: %s."
            % (pf.driver or "(none)", ", ".join(settings), index, pf.address, errno_text(exc)),
            evidence=["rtnetlink, RTM_SETLINK of %s, virtual function %d: %s" % (link.name, index, in_words(settings))],
            remedy=_REMEDIES.get(exc.errno or 0, _OTHER),
            errno=exc.errno,
        ) from exc


def _has_link(root: Root, name: str) -> bool:
    """Whether there is a link, which may come a moment later."""
    deadline = _waited_until.setdefault(root.path(NET, name), time.monotonic() + _LINK_WAIT)
    while root.read_text(NET, name, "carrier") != "1":
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.1)
    return True


def require_taken(root: Root, pf: PciDevice, wanted: Mapping[int, Settings]) -> None:
    """Raise if the driver tells other settings than it was given."""
    found = read_settings(root, pf)
    for index, settings in differences(wanted, found).items():
        wrong = [key for key in settings if found.get(index, {}).get(key) != settings[key]]
        raise HostError(
            "sriov",
            "The driver %s says that it set %s of virtual function %d of %s, and it did not."
            % (pf.driver or "(none)", ", ".join(wrong), index, pf.address),
            evidence=[
                "set: %s" % in_words({key: settings[key] for key in wrong}),
                "read: %s" % in_words({key: found.get(index, {}).get(key) for key in wrong}),
            ],
            remedy="Remove it from functions, or declare the value that the driver can do.",
        )
