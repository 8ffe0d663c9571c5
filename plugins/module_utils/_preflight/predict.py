# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Predict what each application chooses on this host by default, and whether that works.

By default means without any option, thus without a list of allowed devices (-a). The rules are taken from the
applications' sources; docs/guide.md says which of them were observed.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from .._access import hugetlbfs, profiles, services
from .._access.declared import PROFILES
from .._base.fs import Root
from .._base.paths import PA_HINT
from .._host.hugetlb import SIZES_DIR
from .._host.iommu import NODES
from .._host.kernel_config import NOIOMMU_MODE
from .._host.pci import PCI_DEVICES, PciDevice
from .._policy.kinds import BUILTIN, DKMS, IOMMU
from .._policy.unsuitable import poll_mode_driver

TYPE1, NOIOMMU = "type1", "noiommu"
_KERNEL_DRIVER = "%s: applications reach it through the kernel's driver, and find no port on vfio-pci"
_KEEP = "Do not declare it: leave it to the kernel's driver."
_X86 = ("x86_64", "i686")
# SPDK asks for this many address bits of an Intel IOMMU before it uses virtual addresses.
_SPDK_WIDTH = 48


class Prediction(NamedTuple):
    """One application's choice."""

    iova_mode: str | None
    container: str | None
    works: bool
    reasons: list[str]
    # What makes it work, or work with fewer privileges, if the default does not.
    remedy: str | None = None


class Situation(NamedTuple):
    """What the applications look at."""

    root: Root
    backend: str | None
    machine: str
    devices: list[PciDevice]

    @property
    def hint(self) -> bool:
        """Whether DPDK finds the hint, for which it looks only at the host's first PCI device."""
        if any((device.iommu or "").startswith("noiommu-") for device in self.devices):
            first = min(self.root.listdir(PCI_DEVICES), default="")
            return self.root.exists(PCI_DEVICES, first, "iommu/intel-iommu/cap")
        return self.root.read_text(PA_HINT) != "N"


def applications(situation: Situation) -> dict[str, dict[str, Any]]:
    """Return each application's prediction, as noiommu_info does."""
    found = {}
    at_kernel = [device.address for device in situation.devices if poll_mode_driver(device) is not None]
    for name, predict in _PREDICTORS.items():
        prediction = _none(situation) if situation.backend is None else predict(situation)
        pages = _pages(situation.root)
        if at_kernel and situation.backend is not None:
            prediction = prediction._replace(
                works=False, reasons=[*prediction.reasons, _KERNEL_DRIVER % ", ".join(at_kernel)], remedy=_KEEP
            )
        if (prediction.works or prediction.remedy) and not pages:
            prediction = prediction._replace(
                reasons=[*prediction.reasons, "%s: no pages are reserved yet, and it needs some" % SIZES_DIR]
            )
        found[name] = {
            "backend": situation.backend or "none",
            "iova_mode": prediction.iova_mode,
            "container_type": prediction.container,
            "works": prediction.works,
            "reasons": prediction.reasons,
            "remedy": prediction.remedy,
            "capabilities": _capabilities(name, situation, prediction),
        }
    return found


def _capabilities(name: str, situation: Situation, prediction: Prediction) -> list[str]:
    """Return the capabilities that it needs as a service that does not run as root."""
    if situation.backend is None or (not prediction.works and prediction.remedy is None):
        return []
    profile = name if name in PROFILES else "dpdk"
    needed = [grant.capability for grant in profiles.needs(profile, situation.backend, profiles.SERVICE, True, [])]
    if situation.backend == IOMMU and prediction.iova_mode == "PA":
        needed.append("CAP_SYS_ADMIN")
    return needed


def _none(_situation: Situation) -> Prediction:
    return Prediction(None, None, False, ["no backend serves this host: the verdict's refusals say why"])


def _pages(root: Root) -> int:
    return sum(root.read_int(SIZES_DIR, size, "nr_hugepages") or 0 for size in root.listdir(SIZES_DIR))


# --- the rules ---


def _dpdk(at: Situation, how: str = "--iova-mode=pa") -> Prediction:
    if at.backend == IOMMU:
        return Prediction("VA", TYPE1, True, ["an IOMMU translates for every device: DPDK takes virtual addresses"])
    if at.backend == BUILTIN:
        return Prediction("PA", NOIOMMU, True, ["%s: Y, and DPDK then takes physical addresses" % NOIOMMU_MODE, _ADMIN])
    if at.hint and at.machine in _X86:
        return Prediction("PA", TYPE1, True, [_HINT, _ADMIN])
    why = "DPDK on %s does not look for the hint" % at.machine if at.hint else "the hint is off (dpdk_pa_hint=N)"
    return Prediction("VA", TYPE1, False, [why, _GROUPS, _ADMIN], "Start it with %s." % how)


_HINT = (
    "iommu/intel-iommu/cap of the host's first PCI device is no number (dpdk_pa_hint): DPDK on x86 then takes physical"
    " addresses"
)
_GROUPS = "an IOMMU group exists: DPDK takes virtual addresses, and attaching a device fails (error 22)"
_ADMIN = "with physical addresses it reads /proc/self/pagemap: as root, or with CAP_SYS_ADMIN"


def _spdk(at: Situation) -> Prediction:
    if at.machine in _X86 and at.backend != BUILTIN and not _may_be_intel(at.root):
        prediction = _dpdk(at)
        remedy = _WITH_VA if at.backend == IOMMU else prediction.remedy
        return prediction._replace(reasons=[_NOT_INTEL, *prediction.reasons], remedy=remedy)
    width = _iommu_width(at.root)
    if at.machine in _X86 and width < _SPDK_WIDTH and at.backend != BUILTIN:
        node = "%s/dmar*: %s" % (NODES, "%d address bits" % width if width else "none")
        reasons = [node + ", less than the %d bits that SPDK wants: it takes physical addresses" % _SPDK_WIDTH, _ADMIN]
        return Prediction("PA", TYPE1, True, reasons, _WITH_VA if at.backend == IOMMU else None)
    return _dpdk(at)


_WITH_VA = "With the option --iova-mode=va it needs no capability."
_NOT_INTEL = "the processor is not Intel's: SPDK 25.09 and later leave the choice to DPDK, earlier ones take PA"


def _may_be_intel(root: Root) -> bool:
    """Return what SPDK concludes about the processor: it treats an unknown vendor as Intel."""
    vendor = re.search(r"^vendor_id\s*:\s*(\S+)", root.read_text("/proc/cpuinfo") or "", re.MULTILINE)
    return vendor is None or vendor.group(1) == "GenuineIntel"


def _iommu_width(root: Root) -> int:
    """Return the least width of all Intel IOMMUs, 0 without any: the field MGAW of the capability register."""
    widths = []
    for node in root.listdir(NODES):
        text = root.read_text(NODES, node, "intel-iommu/cap") if node.startswith("dmar") else None
        if text is not None and re.match(r"^[0-9a-f]+$", text):
            widths.append((int(text, 16) >> 16 & 0x3F) + 1)
    return min(widths) if widths else 0


def _ovs(at: Situation) -> Prediction:
    if at.backend == IOMMU:
        return _dpdk(at)
    prediction = Prediction(
        "VA",
        TYPE1 if at.backend == DKMS else NOIOMMU,
        False,
        ["Open vSwitch starts DPDK before it names a device; whether the hint is enough then was not tried", _GROUPS],
        "`ovs-vsctl set Open_vSwitch . other_config:dpdk-extra=--iova-mode=pa` before it starts.",
    )
    refused = services.ovs_refusals(at.root)
    if refused:
        reasons = prediction.reasons + [refused[0].message, *refused[0].evidence]
        return prediction._replace(works=False, reasons=reasons, remedy=refused[0].remedy)
    return prediction


def _vpp_dpdk(at: Situation) -> Prediction:
    return _dpdk(at, "`dpdk { iova-mode pa }` in startup.conf")


def _vpp_native(at: Situation) -> Prediction:
    if at.backend == DKMS:
        return Prediction(
            "VA",
            TYPE1,
            False,
            ["VPP's own drivers always map virtual addresses in a type1 container, and that fails (EINVAL)"],
            "Use VPP's DPDK plugin.",
        )
    if at.backend == BUILTIN:
        return Prediction("PA", NOIOMMU, True, ["VPP maps nothing in a no-IOMMU container and uses physical addresses"])
    return Prediction("VA", TYPE1, True, ["an IOMMU translates: VPP's own drivers use virtual addresses"])


_PREDICTORS = {"dpdk": _dpdk, "spdk": _spdk, "ovs": _ovs, "vpp_dpdk": _vpp_dpdk, "vpp_native": _vpp_native}


# --- containers ---


def container(backend: str | None, chardevs: list[str]) -> dict[str, Any]:
    """Return what a container needs to drive the devices, for docker, podman and Kubernetes.

    Its root must be root of the host's user namespace, where the kernel checks the capabilities.
    """
    grants = [] if backend is None else profiles.needs("dpdk", backend, profiles.CONTAINER, True, [])
    devices = [] if backend is None else ["/dev/vfio/vfio", *sorted(set(chardevs))]
    capabilities = [grant.capability[len("CAP_") :] for grant in grants]
    mounts = [] if backend is None else [hugetlbfs.HUGETLBFS]
    arguments = ["--device=%s" % device for device in devices]
    arguments += ["--cap-add=%s" % capability for capability in capabilities]
    arguments += ["--volume=%s:%s" % (mount, mount) for mount in mounts]
    arguments += ["--ulimit=memlock=-1"] if backend is not None else []
    return {
        "devices": devices,
        "capabilities": capabilities,
        "mounts": mounts,
        "memlock": "unlimited",
        "user_namespace": not grants,
        "arguments": arguments,
        "reasons": ["%s: %s" % grant for grant in grants] or [profiles.NONE_NEEDED] * (backend is not None),
    }
