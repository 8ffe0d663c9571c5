# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Read the whole host once and give one verdict: which backend serves it, and every reason to refuse."""

from __future__ import annotations

import os
from functools import cached_property
from typing import Any, Container, NamedTuple, Sequence

from .._base import times
from .._base.errors import HostError
from .._base.fs import Root
from .._base.paths import ACCESS_RECORD, BINDINGS, HUGEPAGES_RECORD, HUGETLB_MOUNTS_RECORD, LIBRARY, STATE
from .._base.records import load_json
from .._cmdline.iommu import enabling
from .._devices.originals import Originals
from .._devices.recorded import Recorded
from .._devices.schemas import BINDINGS as BINDINGS_SCHEMA
from .._devices.selectors import match
from .._devices.sriov import losses, plan_functions
from .._dkms import signing
from .._dkms.upkeep import headers_to_come
from .._host import hugetlb, kernels, taint
from .._host.bars import read_naming
from .._host.iommu import HostIommu, chardev_of, classify, group_refusals, host_iommu, read_group
from .._host.kernel_config import lockdown, vfio_noiommu_config
from .._host.modules import module_installed, module_loaded
from .._host.mounts import refuse_late
from .._host.pci import PciBus, PciDevice
from .._policy import acceptance
from .._policy.backend import NOT_ACCEPTED, UNSAFE_INTERRUPTS, choose
from .._policy.declared_bars import choose_declared
from .._policy.guard_context import GuardContext
from .._policy.guards import check, loss_refusals
from .._policy.kinds import DKMS, IOMMU, VFIO_PCI
from .._policy.undeclared import undeclared
from .._policy.unsuitable import unsuitable
from .._policy.vfio_ids import id_refusals
from .declared import LaterSteps
from .declared import refusals as later_refusals
from .held import Wanted
from .held import refusals as held
from .obstacles import Steps
from .obstacles import refusals as obstacles

MODULE = "noiommu"
_VFIO_MODULES = ("vfio", "vfio_pci", "vfio_pci_core", "vfio_iommu_type1")

# Classes that data planes drive: listed if nothing is selected.
_CLASSES = {"01": "storage", "02": "network", "0b": "accelerator", "12": "accelerator"}


class Declaration(NamedTuple):
    """What is declared for the host: the arguments of noiommu_info."""

    devices: list[dict[str, Any]]
    sriov: list[dict[str, Any]]
    backend: str = "auto"
    accept_unsafe: bool = False
    enable_iommu: bool = False
    kmod_build: str = "on_host"
    insecure_until: str | None = None
    undeclared: Sequence[str] = ()  # kinds that no variable declares, see _policy/undeclared.py
    hugepages: list[dict[str, Any]] | None = None
    hugepage_mounts: list[dict[str, Any]] | None = None
    access: dict[str, Any] | None = None
    host_memory: str | None = None
    dpdk_pa_hint: bool | None = None


# What noiommu_info returns besides the verdict.
PARTS = (
    "kernel",
    "iommu",
    "iommu_boot",
    "secure_boot",
    "module_signing",
    "lockdown",
    "module",
    "vfio",
    "taint",
    "insecure",
    "devices",
    "hugepages",
    "recorded",
    "os",
    "packages_missing",
    "prebuilt_kernels",
    "applications",
    "container",
)
ALL = "all"


class Preflight:
    """A snapshot of the host for one declaration."""

    def __init__(self, root: Root, context: GuardContext, declared: Declaration) -> None:
        self._root = root
        self._until, self._now = declared.insecure_until, times.utc_now()
        self._bus = PciBus(root)
        originals = self._originals = Originals.load(root)
        self._recorded = {record.address: record for record in originals.identities()}
        known = list(self._recorded.values())
        self._undeclared = undeclared(root, declared.undeclared)
        # Without a declaration, the present virtual functions count.
        judged = bool(declared.sriov or declared.devices) and "sriov" not in declared.undeclared
        plans, errors = plan_functions(root, self._bus, declared.sriov, known, originals.sriov if judged else {})
        present = PciBus(root)
        lost = losses(plans, present)
        errors += loss_refusals(context, present, lost, set(self._recorded))
        pairs, self._selector_errors = match(declared.devices, self._bus, known)
        self._selected = [device for device, _entry in pairs]
        self._combined, harmful, self._unknown_bars = choose_declared(root, pairs, VFIO_PCI)
        self._selector_errors += errors + harmful
        self._release = kernels.running(root)
        self._iommu = host_iommu(root)
        self._enabling = enabling(root, self._iommu, declared.enable_iommu)
        self._choice = choose(root, declared.backend, declared.accept_unsafe, self._enabling.pending)
        leaving, hint = [function for _pf, function in lost], declared.dpdk_pa_hint
        self._wanted = Wanted(self._selected, leaving, self._choice.backend, self._combined, hint)
        self._by_selector = bool(declared.devices)
        self._guards = {
            device.address: [] if device.planned else check(context, self._bus, device) for device in self._shown()
        }
        self._prebuilt = declared.kmod_build == "prebuilt"
        self._lacking = {} if self._prebuilt else kernels.missing_for_build(root, self._release)
        self._signing = signing.read(root, self._prebuilt)
        later = LaterSteps(declared.hugepages, declared.hugepage_mounts, declared.access, declared.host_memory)
        self._later_refusals = later_refusals(root, later, self._choice.backend)
        at_boot = bool(declared.devices or declared.sriov or declared.hugepages or declared.hugepage_mounts)
        combines, required = bool(self._combined), self._module_required
        self._steps = Steps(self._choice.backend, at_boot, combines, required, self._prebuilt, sorted(self._lacking))

    def report(self, subset: Container[str] = (ALL,)) -> dict[str, Any]:
        """Return the verdict and these ``PARTS`` of the facts behind it, as noiommu_info does."""
        found = {
            "kernel": self._kernel,
            "iommu": self._iommu._asdict,
            "iommu_boot": self._enabling.report,
            "secure_boot": lambda: signing.secure_boot(self._root),
            "module_signing": self._signing.report,
            "lockdown": lambda: lockdown(self._root),
            "module": self._module,
            "vfio": lambda: {module: read_parameters(self._root, module) for module in _VFIO_MODULES},
            "taint": lambda: self._taint,
            "insecure": lambda: acceptance.report(self._root, self._taint, self._until, self._now),
            "devices": lambda: self._devices,
            "hugepages": hugetlb.Pools(self._root).report,
            "recorded": self._recorded_settings,
            "os": lambda: kernels.read_os(self._root)._asdict(),
            "packages_missing": self._packages_missing,
            "prebuilt_kernels": self._prebuilt_kernels,
            "applications": self._applications,
            "container": self._container,
        }
        wanted = [part for part in PARTS if ALL in subset or part in subset]
        return {**{part: found[part]() for part in wanted}, "verdict": self._verdict()}

    # --- the host ---

    @cached_property
    def _taint(self) -> dict[str, Any]:
        return taint.report(self._root)

    def _recorded_settings(self) -> dict[str, bool]:
        records = {"hugepages": HUGEPAGES_RECORD, "hugepage_mounts": HUGETLB_MOUNTS_RECORD, "access": ACCESS_RECORD}
        return {name: self._root.exists(path) for name, path in records.items()}

    def _kernel(self) -> dict[str, Any]:
        return {
            "release": self._release,
            "config_vfio_noiommu": vfio_noiommu_config(self._root, self._release),
            "installed": [
                {
                    "release": kernel,
                    "running": kernel == self._release,
                    "headers": kernels.headers(self._root, kernel) is not None,
                    "module_installed": module_installed(self._root, MODULE, kernel),
                }
                for kernel in kernels.installed(self._root)
            ],
        }

    def _packages_missing(self) -> list[str]:
        """Packages that a build needs, for the running kernel and for later ones."""
        to_come = None if self._prebuilt else headers_to_come(self._root)
        return sorted([*self._lacking, *([to_come[1]] if to_come else [])])

    def _module(self) -> dict[str, Any]:
        return {
            "loaded": self._root.exists("/sys/module", MODULE),
            "version": self._root.read_text("/sys/module", MODULE, "version"),
            "parameters": read_parameters(self._root, MODULE) or {},
        }

    def _prebuilt_kernels(self) -> list[str]:
        """The kernels that need a module from a build host."""
        wanted = self._prebuilt and self._module_required
        # A directory with another name is not a kernel's. The controller refuses a bad running release.
        others = filter(kernels.is_release, kernels.installed(self._root))
        return sorted({self._release, *others}) if wanted else []

    # --- the devices ---

    @cached_property
    def _devices(self) -> list[dict[str, Any]]:
        return [self._device(device) for device in self._shown()]

    @cached_property
    def _met(self) -> tuple[str | None, list[PciDevice]]:
        """The backend and the devices that applications meet: what is declared, else what was deployed.

        What serves the host already needs no acceptance to be described.
        """
        if self._choice.backend is not None or {refusal.code for refusal in self._choice.refusals} != {NOT_ACCEPTED}:
            return self._choice.backend, self._selected
        try:
            deployed = load_json(self._root, BINDINGS, BINDINGS_SCHEMA) or {}
        except HostError:  # reported where the record is needed for binding
            deployed = {}
        known = (self._bus.get(address) for address in self._recorded)
        return deployed.get("backend"), self._selected or [device for device in known if device is not None]

    def _applications(self) -> dict[str, Any]:
        from . import predict  # It imports much of _access, which a deploy does not need.

        backend, devices = self._met
        return predict.applications(predict.Situation(self._root, backend, os.uname().machine, devices))

    def _container(self) -> dict[str, Any]:
        from . import predict

        backend, devices = self._met
        nodes = [chardev_of(self._root, device.iommu_group) for device in devices]
        return predict.container(backend, [node for node in nodes if node and self._root.exists(node)])

    def _shown(self) -> list[PciDevice]:
        if self._by_selector:
            return self._selected
        return [device for device in self._bus if device.is_endpoint and device.class_code[:2] in _CLASSES]

    def _device(self, device: PciDevice) -> dict[str, Any]:
        number = device.iommu_group
        group = read_group(self._root, number) if number is not None else None
        safety = classify(self._root, device, group)
        record: Recorded | None = self._recorded.get(device.address)
        return {
            "address": device.address,
            "selected": self._by_selector,
            "vendor_device": device.vendor_device,
            "class": _CLASSES.get(device.class_code[:2], "other"),
            "class_code": device.class_code,
            "driver": device.driver,
            "interfaces": [interface.name for interface in device.interfaces],
            # A bound device has no interface any more; its MAC address was recorded.
            "mac": device.mac or (record.macs[0] if record and record.macs else None),
            "numa_node": device.numa_node,
            "group": number,
            "chardev": group.chardev if group is not None and self._root.exists(group.chardev) else None,
            "safety": safety.level,
            "safety_reason": safety.reason,
            "write_combining": list(read_naming(self._root, device.address).combined),
            "guards": [guard.as_dict() for guard in self._guards[device.address]],
        }

    # --- the verdict ---

    def _verdict(self) -> dict[str, Any]:
        refusals = [*self._undeclared, *self._enabling.refusals, *self._choice.refusals, *self._selector_errors]
        if acceptance.is_expired(self._until, self._now) and self._choice.backend in acceptance.INSECURE:
            refusals.append(acceptance.refusal(self._until, self._now))
        for device in self._selected:
            guards = self._originals.standing(self._guards[device.address], device, self._bus)
            refusals += [guard.refusal() for guard in guards]
            refusals += unsuitable(self._root, device, VFIO_PCI)
        addresses = {device.address for device in self._selected}
        if self._selected:
            refusals += id_refusals(self._root, self._bus, self._choice.backend, addresses)
        if self._choice.backend == IOMMU:
            there = [device for device in self._selected if not device.planned]
            refusals += group_refusals(self._root, self._bus, there, addresses)
        refusals += self._vfio_missing() + self._unsigned() + self._later_refusals
        refusals += obstacles(self._root, self._steps) + held(self._root, self._wanted)
        if self._by_selector:
            refusals += refuse_late(self._root, (LIBRARY, STATE))
        return {
            "backend": self._choice.backend or "none",
            "module_required": self._module_required,
            "safe": self._choice.backend == IOMMU and self._iommu.state == "active",
            "ok": not refusals,
            "refusals": [refusal.as_dict() for refusal in refusals],
            "warnings": self._warnings(),
            "reboot_required": self._stale() or self._enabling.pending,
        }

    @property
    def _module_required(self) -> bool:
        """Whether a deploy installs the noiommu module: as the backend, or for write combining alone."""
        return self._choice.backend == DKMS or (self._choice.backend is not None and bool(self._combined))

    def _stale(self) -> bool:
        """Whether the running kernel's modules were removed, for example by an upgrade of the same version."""
        return not self._root.exists(kernels.MODULES, self._release) and bool(kernels.installed(self._root))

    def _unsigned(self) -> list[HostError]:
        """The reasons why the kernel would not load the module; under lockdown, both problems are reported."""
        locked = next((refusal for refusal in self._choice.refusals if refusal.code == "lockdown"), None)
        if locked is not None:
            locked.evidence += [
                fact for fact in signing.facts(self._root, self._signing) if fact not in locked.evidence
            ]
        elif not self._module_required:
            return []
        unsigned = signing.refusal(self._root, self._signing)
        return [] if unsigned is None else [unsigned]

    def _vfio_missing(self) -> list[HostError]:
        driver = VFIO_PCI
        if module_loaded(self._root, driver) or module_installed(self._root, driver, self._release):
            return []
        index = "%s/%s/modules.dep" % (kernels.MODULES, self._release)
        remedy = "Install a kernel with CONFIG_VFIO_PCI (Debian: linux-image-amd64) and boot it."
        if self._stale():
            remedy = "Reboot into an installed kernel: the running kernel's modules are gone."
        return [
            HostError(
                "vfio_missing",
                "The running kernel %s has no vfio-pci." % self._release,
                evidence=[index + (": lists no vfio-pci" if self._root.exists(index) else ": absent")],
                remedy=remedy,
            )
        ]

    def _warnings(self) -> list[str]:
        warnings = [*self._choice.warnings, *self._unknown_bars]
        if self._module_required:
            warnings += self._build_warnings()
        if self._iommu.state == "active" and read_parameters(self._root, "vfio_iommu_type1"):
            warnings += self._unsafe_interrupts(self._iommu)
        if not self._selected:
            return warnings
        from .contradictions import contradictions

        return warnings + contradictions(self._root, self._choice.backend, self._selected, self._recorded)

    def _build_warnings(self) -> list[str]:
        if self._prebuilt:
            return []
        return [
            "The installed kernel %s has no headers: after booting it, the devices have no backend. Install %s."
            % (release, kernels.headers_package(self._root, release))
            for release in kernels.installed(self._root)
            if release != self._release and kernels.headers(self._root, release) is None
        ]

    def _unsafe_interrupts(self, iommu: HostIommu) -> list[str]:
        if self._root.read_text(UNSAFE_INTERRUPTS) != "Y":
            return []
        return [
            "vfio_iommu_type1.allow_unsafe_interrupts is Y although an IOMMU (%s) is active: devices can forge"
            " interrupts. Remove the option unless the hardware lacks interrupt remapping." % ", ".join(iommu.drivers)
        ]


def read_parameters(root: Root, module: str) -> dict[str, str] | None:
    """Return a loaded module's readable parameters, None if it is not loaded."""
    base = "/sys/module/%s" % module
    if not root.exists(base):
        return None
    found = {}
    for name in root.listdir(base, "parameters"):
        path = base + "/parameters/" + name
        if os.stat(root.path(path)).st_mode & 0o444:
            found[name] = root.read_text(path) or ""
    return found
