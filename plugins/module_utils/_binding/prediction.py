# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a plan predicts and what was reached: the steps, and the states of the devices before and after."""

from __future__ import annotations

from typing import Any

from .._base.fs import Root
from .._base.paths import UNIT_NAME
from .._devices import links
from .._devices.originals import Originals
from .._devices.sriov import count, read_settings
from .._devices.steps import observe
from .._devices.vf_settings import in_words as settings_in_words
from .._host.iommu import chardev_of
from .._host.modules import module_loaded
from .._policy.backend import Needs, modules_to_unload
from . import boot_files
from .moves import Move, in_words
from .plan import BindingPlan


def steps(plan: BindingPlan) -> list[str]:
    """Describe everything that will be done, in order."""
    root = plan.root
    parameters = plan.needs.parameters.items()
    lines = ["renew the record of %s" % address for address in sorted(set(plan.renewed))]
    lines += ["load module %s" % name for name in plan.needs.modules if not module_loaded(root, name)]
    lines += ["set %s to %s" % (path, value) for path, value in parameters if root.read_text(path) != value]
    lines += [step for vf_plan in plan.vf_plans if not vf_plan.changes for step in vf_plan.steps]
    lines += in_words(plan.releases)
    for vf_plan in plan.vf_plans:
        lines += ["%s: set %s up" % (vf_plan.pf.address, name) for name in vf_plan.down]
        lines += [str(vf_plan), *vf_plan.steps] if vf_plan.changes else []
    lines += ["set %s back to %s" % pair for pair in plan.autoprobe.items()]
    lines += in_words(plan.bindings)
    names = links.changes(root, plan.originals).items()
    lines += ["%s the name %s/%s" % ("set" if target else "remove", links.BASE, name) for name, target in names]
    if boot_files.is_enabled(root) != plan.enabled:
        lines.append("%s %s" % ("enable" if plan.enabled else "disable", UNIT_NAME))
    # Devices that are kept need what was set for them.
    lines += [] if plan.kept else _restored(root, plan.recorded, plan.needs)
    empty = boot_files.empty_directories(root, plan.is_declared)
    return lines + ["remove the empty directory %s" % path for path in empty]


def _restored(root: Root, recorded: Originals, wanted: Needs) -> list[str]:
    """Describe what is restored of the host once no device needs it."""
    left = [path for path in recorded.parameters if path not in wanted.parameters]
    lines = ["set %s back to %s" % (path, recorded.parameters[path]) for path in left]
    return lines + ["unload module %s" % name for name in modules_to_unload(root, recorded.modules, wanted.modules)]


def has_changes(plan: BindingPlan) -> bool:
    """Whether there is anything to do."""
    is_recorded = plan.originals == plan.recorded
    return bool(steps(plan) or plan.releases) or not is_recorded or plan.files.changed


def before(plan: BindingPlan) -> dict[str, Any]:
    """Return the state that was found."""
    return {
        "devices": [move.now.report() for move in _by_address(plan)],
        "sriov": [vf_plan.report(vf_plan.now, vf_plan.found) for vf_plan in plan.vf_plans],
    }


def after(plan: BindingPlan) -> dict[str, Any]:
    """Return the state that will be reached."""
    return {
        "devices": [move.predict(plan.backend).report() for move in _by_address(plan)],
        "sriov": [vf_plan.report(vf_plan.want, vf_plan.wanted) for vf_plan in plan.vf_plans],
    }


def unknown(plan: BindingPlan) -> dict[str, dict[str, str]]:
    """Return in words what cannot be known yet of that state, by device."""
    return {move.device.address: move.unknown() for move in plan.moves}


def reached(plan: BindingPlan) -> dict[str, Any]:
    """Return the state that there is now."""
    root = plan.root
    return {
        "devices": [observe(root, move.device).report() for move in _by_address(plan)],
        "sriov": [
            vf_plan.report(count(root, vf_plan.pf), read_settings(root, vf_plan.pf) if vf_plan.wanted else {})
            for vf_plan in plan.vf_plans
        ],
    }


def _by_address(plan: BindingPlan) -> list[Move]:
    return sorted(plan.moves, key=lambda move: move.device.address)


def resolved(plan: BindingPlan, state: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the declared devices with their identity, and with what a state says of them."""
    states = {device["address"]: device for device in state["devices"]}
    records = plan.originals.devices
    return [
        dict(
            states[device.address],
            vendor_device=device.vendor_device,
            backend=plan.backend,
            chardev=chardev_of(plan.root, states[device.address]["iommu_group"]),
            names=["%s/%s" % (links.BASE, name) for name in links.names(device.address, records[device.address])],
            original_driver=records[device.address]["driver"],
            interfaces=[interface["name"] for interface in records[device.address]["interfaces"]],
            macs=plan.originals.macs(device.address),
        )
        for device in plan.devices
    ]


def as_text(state: dict[str, Any], unknown: dict[str, dict[str, str]] | None = None) -> str:
    """Render a state as the diff shows it, with words by address for what is not known of it yet."""
    lines = []
    for device in state["devices"]:
        words = (unknown or {}).get(device["address"], {})
        shown = {key: words.get(key, value) if value is None else value for key, value in device.items()}
        address = shown.pop("address")
        said = ("%s: %s" % (key, "none" if value in (None, []) else value) for key, value in shown.items())
        lines.append("%s: {%s}" % (address, ", ".join(said)))
    for physical in state["sriov"]:
        lines.append("%s: %d virtual functions" % (physical["pf"], physical["vfs"]))
        lines += [
            "  %d: %s" % (function["vf"], settings_in_words(function)) for function in physical.get("functions", ())
        ]
    return "\n".join(lines) + "\n" if lines else ""
