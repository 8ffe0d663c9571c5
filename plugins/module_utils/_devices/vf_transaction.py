# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Set existing virtual functions up as part of a transaction."""

from __future__ import annotations

from typing import Any, Collection, Mapping

from .._host.pci import PciBus, PciDevice
from .._policy.kinds import PASSTHROUGH_DRIVERS
from .identity import interface_state
from .sriov import read_settings, require_known
from .steps import observe
from .transaction import Transaction, as_target
from .vf_control import require_taken, set_back, set_settings
from .vf_settings import NO_MAC, Settings, differences


def configure(
    transaction: Transaction, pf: PciDevice, wanted: Mapping[int, Settings], bound_later: Collection[str] = ()
) -> None:
    """Set the settings that differ, and check that the driver has them then.

    A driver of the host learns a MAC address when it is bound: it is bound anew, unless the device is in
    ``bound_later``.
    """
    if not wanted:
        return
    kernel, root = transaction.kernel, transaction.kernel.root
    bus, found = PciBus(root), read_settings(root, pf)
    changes = differences(wanted, found)
    require_known(pf, found, changes)
    for index, settings in changes.items():
        before = {key: found[index][key] for key in settings}
        device = bus.functions(pf).get(index)
        state = observe(root, device) if device is not None and "mac" in settings else None
        if device is None or state is None or state.driver in (None, *PASSTHROUGH_DRIVERS):
            _set(transaction, pf, index, settings, before)
            continue
        interfaces = interface_state(device)
        transaction.move(device, as_target(state)._replace(driver=None))
        try:
            _set(transaction, pf, index, settings, before)
            interfaces = [_renamed(interface, settings["mac"]) for interface in interfaces]
        finally:  # a caller may go on without these settings, and the host needs the function
            if device.address not in bound_later:
                transaction.move(device, as_target(state))
                kernel.restore_links({device.address: interfaces})
    require_taken(root, pf, changes)


def _set(transaction: Transaction, pf: PciDevice, index: int, settings: Settings, before: Settings) -> None:
    root, what = transaction.kernel.root, "%s of virtual function %d of %s" % (", ".join(settings), index, pf.address)
    transaction.on_rollback(what, lambda: set_back(root, pf, {index: before}))
    set_settings(root, pf, index, settings)


def _renamed(interface: dict[str, Any], mac: str) -> dict[str, Any]:
    """Return how an interface is recognised once its device has another MAC address; without one, by its name."""
    known = {key: value for key, value in interface.items() if key != "permanent"}
    return dict(known, mac=mac if mac != NO_MAC else None)
