# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which backend serves a host, what each backend needs of it, and why one is refused."""

from __future__ import annotations

from typing import NamedTuple

from .._base.errors import HostError
from .._base.fs import Root
from .._base.paths import BINDINGS, PA_HINT
from .._base.records import load_json
from .._host.addressing import is_encrypted, is_xen_pv
from .._host.iommu import HostIommu, host_iommu
from .._host.kernel_config import NOIOMMU_MODE, lockdown, vfio_noiommu_config
from .._host.modules import dependencies, module_loaded
from .kinds import BUILTIN, DKMS, IOMMU

NOT_ACCEPTED = "unsafe_not_accepted"
UNSAFE_INTERRUPTS = "/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts"

INSECURE_MODE = (
    "Without an IOMMU nothing confines a device: the application that drives it, and the device itself, can read and "
    "write all memory of this host, the kernel's included. "
    "The kernel is marked tainted from the first use until reboot."
)


class Choice(NamedTuple):
    """The backend, or why there is none."""

    backend: str | None
    refusals: list[HostError]
    warnings: list[str]


class Needs(NamedTuple):
    """What a backend needs of the host besides the devices."""

    modules: list[str]
    parameters: dict[str, str]
    modprobe_options: list[str]


def choose(root: Root, requested: str = "auto", accept_unsafe: bool = False, enabling_iommu: bool = False) -> Choice:
    """Choose the backend for this host, or list every reason for refusing it.

    A working IOMMU always wins. Insecure mode is refused beside it, and without the operator's explicit consent.
    ``enabling_iommu``: an IOMMU that is off will be turned on by a reboot, and counts as working.
    """
    iommu = host_iommu(root)
    backend = requested
    if enabling_iommu and iommu.state == "firmware_off" and requested in ("auto", IOMMU):
        return Choice(IOMMU, [], [_comes_with_boot(iommu)])
    if requested == "auto":
        if iommu.state == "active":
            backend = IOMMU
        else:
            backend = BUILTIN if has_builtin(root) else DKMS
    if backend == IOMMU:
        return Choice(IOMMU, [], []) if iommu.state == "active" else Choice(None, [_no_iommu(iommu)], [])
    refusals = []
    if enabling_iommu and iommu.state == "firmware_off":
        refusals.append(_contradiction(backend, iommu))
    if iommu.state == "active":
        refusals.append(_iommu_active(backend, iommu))
    if backend == BUILTIN and not has_builtin(root):
        refusals.append(_no_builtin(root))
    if backend == DKMS and lockdown(root) not in (None, "none"):
        refusals.append(_locked_down(root))
    refusals += _not_direct(root)
    if not accept_unsafe:
        refusals.append(_not_accepted(iommu))
    if requested == "auto" and _was_isolated(root):
        refusals.append(_iommu_lost(backend, iommu))
    warnings = [_firmware_off(iommu)] if iommu.state == "firmware_off" else []
    return Choice(None if refusals else backend, refusals, warnings)


def _was_isolated(root: Root) -> bool:
    try:
        return (load_json(root, BINDINGS) or {}).get("backend") == IOMMU
    except HostError:  # reported where the record is needed for binding
        return False


def needs(backend: str, driver: str, pa_hint: bool, write_combining: bool = False) -> Needs:
    """Return what a backend needs: modules in load order, live parameters, and modprobe options for later boots.

    ``write_combining``: whether a device needs the noiommu module besides, for its BARs alone.
    """
    if backend == DKMS:
        flag = "Y" if pa_hint else "N"
        return Needs(
            ["noiommu", "vfio_iommu_type1", driver],
            {PA_HINT: flag, UNSAFE_INTERRUPTS: "Y"},
            ["noiommu dpdk_pa_hint=" + flag, "vfio_iommu_type1 allow_unsafe_interrupts=1"],
        )
    for_bars = ["noiommu"] if write_combining else []
    if backend == BUILTIN:
        # The module is often loaded before its options are written, so its live value is written as well.
        return Needs(["vfio", *for_bars, driver], {NOIOMMU_MODE: "Y"}, ["vfio enable_unsafe_noiommu_mode=1"])
    return Needs([*for_bars, driver], {}, [])


def with_dependencies(root: Root, modules: list[str]) -> set[str]:
    """Return modules and all that came along with them."""
    return set(modules).union(*(dependencies(root, module) for module in modules))


def modules_to_unload(root: Root, recorded: list[str], needed: list[str]) -> list[str]:
    """Return the recorded modules that are no longer needed, in reverse order of loading.

    One that is not loaded stays recorded as long as any is needed: another kernel of the host may have it.
    """
    needed_too = with_dependencies(root, needed)
    return [name for name in reversed(recorded) if name not in needed_too and (not needed or module_loaded(root, name))]


def has_builtin(root: Root) -> bool:
    """Whether VFIO's own no-IOMMU mode can be switched on."""
    return vfio_noiommu_config(root) == "y"


# --- refusals ---


def _enable_hint(iommu: HostIommu) -> str:
    hint = "boot with %s" % iommu.enable_with
    if iommu.disabled_by:
        hint += " and without %s" % " ".join(iommu.disabled_by)
    return hint


def _firmware_off(iommu: HostIommu) -> str:
    return "The firmware describes an IOMMU (ACPI %s) that is off. Better than insecure mode: %s." % (
        ", ".join(iommu.firmware_tables),
        _enable_hint(iommu),
    )


def _comes_with_boot(iommu: HostIommu) -> str:
    return "The IOMMU that the firmware describes (ACPI %s) is off until the reboot that turns it on." % (
        ", ".join(iommu.firmware_tables)
    )


def _contradiction(backend: str, iommu: HostIommu) -> HostError:
    return HostError(
        "iommu_wanted",
        "The IOMMU of this host is to be turned on, but the insecure backend %s is requested." % backend,
        evidence=["ACPI tables of an IOMMU: %s" % ", ".join(iommu.firmware_tables)],
        remedy="Use the backend auto or iommu, or unset noiommu_enable_iommu (enable_iommu).",
    )


def _no_iommu(iommu: HostIommu) -> HostError:
    if iommu.state == "firmware_off":
        remedy = "Turn it on: %s." % _enable_hint(iommu)
    else:
        remedy = "Enable VT-d, AMD-Vi or the SMMU in the firmware setup if there is one, or choose another backend."
    return HostError(
        "backend_unavailable",
        "The backend iommu needs a working hardware IOMMU, and this host has none.",
        evidence=[
            "/sys/class/iommu: no hardware node",
            "ACPI tables of an IOMMU: %s" % (", ".join(iommu.firmware_tables) or "none"),
        ],
        remedy=remedy,
    )


def _iommu_lost(backend: str, iommu: HostIommu) -> HostError:
    return HostError(
        "iommu_lost",
        "This host was deployed with a working hardware IOMMU and has none now. What was accepted for hosts without one"
        " would remove the isolation that its devices had.",
        evidence=["%s: backend iommu" % BINDINGS, "hardware IOMMU: %s" % iommu.state],
        remedy="Look into the firmware setup and the kernel command line for what turned it off. If insecure mode is"
        " meant here from now on, name the backend (noiommu_backend: %s)." % backend,
    )


def _iommu_active(backend: str, iommu: HostIommu) -> HostError:
    return HostError(
        "iommu_active",
        "This host has a working hardware IOMMU; the insecure backend %s is refused beside it." % backend,
        evidence=["/sys/class/iommu: %s" % (", ".join(iommu.drivers) or "none, but hardware IOMMU groups exist")],
        remedy="Use the backend auto or iommu.",
    )


def _no_builtin(root: Root) -> HostError:
    return HostError(
        "backend_unavailable",
        "This kernel was built without VFIO's own no-IOMMU mode, which the backend builtin needs.",
        evidence=["CONFIG_VFIO_NOIOMMU: %s" % vfio_noiommu_config(root), "%s: absent" % NOIOMMU_MODE],
        remedy="Use the backend auto or dkms.",
    )


def _locked_down(root: Root) -> HostError:
    return HostError(
        "lockdown",
        "The kernel is locked down (%s), and insecure mode would defeat that: a device without an IOMMU can write"
        " the memory that lockdown protects. Signing the noiommu module does not change that." % lockdown(root),
        evidence=["/sys/kernel/security/lockdown: %s" % root.read_text("/sys/kernel/security/lockdown")],
        remedy="Use a host with an IOMMU, or turn Secure Boot and lockdown off if that is acceptable.",
    )


def _not_direct(root: Root) -> list[HostError]:
    """Refuse insecure mode where it cannot work because devices would use wrong addresses."""
    encrypted, xen = is_encrypted(root), is_xen_pv(root)
    refusals = []
    if encrypted:
        refusals.append(
            HostError(
                "memory_encrypted",
                "The memory of this host is encrypted: a device does not see what the processor sees at an address.",
                evidence=[encrypted],
                remedy="Use a host with an IOMMU, or boot without memory encryption (AMD: mem_encrypt=off; as a guest:"
                " without SEV or TDX).",
            )
        )
    if xen:
        refusals.append(
            HostError(
                "xen_pv",
                "This host is a paravirtualized Xen domain, where devices use other addresses than the physical ones"
                " that Linux knows.",
                evidence=[xen],
                remedy="Run it as an HVM or PVH domain with an IOMMU, or without Xen.",
            )
        )
    return refusals


def _not_accepted(iommu: HostIommu) -> HostError:
    evidence = ["hardware IOMMU: %s" % iommu.state]
    remedy = "If that is acceptable on this host, set accept_unsafe (noiommu_accept_unsafe: true)."
    if iommu.state == "firmware_off":
        remedy = "Better: %s. %s" % (_enable_hint(iommu), remedy)
    return HostError(NOT_ACCEPTED, "Insecure mode was not accepted. " + INSECURE_MODE, evidence, remedy)
