# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one specification of what an inventory may declare for this collection.

Variables are checked against it before a host is connected to, and `make docs` makes docs/variables.md of it. The
kinds of entries are the modules' own argument specifications.
"""

from __future__ import annotations

from typing import Any, Mapping, NamedTuple

from ansible_collections.baremetal.noiommu.plugins.module_utils._access.declared import GRANTS_SPEC
from ansible_collections.baremetal.noiommu.plugins.module_utils._devices.selectors import ELEMENT_SPEC
from ansible_collections.baremetal.noiommu.plugins.module_utils._devices.sriov import ELEMENT_SPEC as SRIOV_SPEC
from ansible_collections.baremetal.noiommu.plugins.module_utils._hugepages.declared import MOUNTS_SPEC, POOLS_SPEC


class Variable(NamedTuple):
    """One public variable. Texts are Markdown, with links as in a page of docs/."""

    kind: Mapping[str, Any]  # as in an argument specification; a scalar is any value but a list or a mapping
    summary: str
    default: str = ""  # what is used without it, empty for nothing
    more: str = ""
    keys: Mapping[str, str] = {}  # of an entry: what each means
    example: str = ""
    extra: bool = False  # read before any host's variables are known, so only as an extra variable
    adds_up: bool = False  # with every variable of this name and an ending, see parts.py


_BOOLEAN, _TEXT = {"type": "bool"}, {"type": "str"}
_PROFILE = "`dpdk`, `spdk`, `ovs` or `custom`, see [profiles](guide.md#access)"
_CAPABILITIES = "what an application of the profile `custom` needs, such as `[net_raw]`"

SECTIONS: dict[str, dict[str, Variable]] = {
    "The host as a whole": {
        "noiommu_accept_unsafe": Variable(
            _BOOLEAN,
            "Accepts insecure passthrough on this host.",
            default="`false`",
            more="Without it, a host without a working IOMMU is refused and left as it is.",
        ),
        "noiommu_insecure_until": Variable(
            {"type": "date"},
            "The last day (UTC) on which insecure passthrough is accepted.",
            more="Without it there is no end. See"
            " [until when it is accepted](report.md#until-when-insecure-passthrough-is-accepted).",
            example='noiommu_insecure_until: "2027-01-31"',
        ),
        "noiommu_backend": Variable(
            {"type": "str", "choices": ["auto", "iommu", "builtin", "dkms"]},
            "Which [backend](guide.md#the-backends) serves the devices.",
            default="`auto`",
            more="`auto` chooses the safest one that works.",
        ),
        "noiommu_enable_iommu": Variable(
            _BOOLEAN,
            "Turns on an IOMMU that the firmware describes but that is off.",
            default="`false`",
            more="Insecure mode is then refused.",
        ),
        "noiommu_reboot_ok": Variable(
            _BOOLEAN,
            "A deploy may reboot the host if the IOMMU or pages of 1 GiB require it.",
            default="`false`",
        ),
        "noiommu_state": Variable(
            {"type": "str", "choices": ["present", "absent"]},
            "`absent` undoes everything on this host.",
            default="`present`",
        ),
        "noiommu_maintenance": Variable(
            {"type": "scalar"},
            "Why the host is in maintenance.",
            more="A deploy skips such a host and says so. Empty or `false` means that it is not.",
            example="noiommu_maintenance: waiting for a new disk",
        ),
    },
    "Devices": {
        "noiommu_devices": Variable(
            kind=ELEMENT_SPEC,
            adds_up=True,
            summary="The data plane's devices, as the *whole* list.",
            more="A device that is no longer listed is released; `[]` releases all."
            " Each entry has exactly one selector, which may match several devices. `interface`, `mac` and `serial`"
            " still select the same device after it is bound, when the host no longer shows these properties: the match"
            " is recorded.",
            keys={
                "address": 'this PCI address, such as `"0000:65:00.1"` (quoted); `A-B` is a range, commas make a list',
                "vendor_device": 'every device of this model, such as `"8086:1572"`',
                "interface": "the device behind this network interface, such as `ens2f0`",
                "mac": 'the device of this permanent or current MAC address, such as `"b4:96:91:00:00:01"`',
                "slot": 'everything in this slot of `/sys/bus/pci/slots`, or with `"4.1"` one function of it',
                "serial": "an NVMe disk, or every function with this PCI Express serial number",
                "pf": "virtual functions of this physical function, by its interface, MAC address or PCI address",
                "subsystem": 'with `vendor_device`: only those of this subsystem, such as `"1028:0001"`',
                "vf": 'with `pf`: the indexes of the virtual functions, such as `["0-3"]`; without it, all of them',
                "count": "how many devices the entry must match; another number is refused, with a list of the matches",
                "write_combining": "the BARs that are [mapped write-combined](guide.md#write-combining), by number,"
                " such as `[2]`; or `prefetchable`, for those that are known to hold data only",
            },
            example='noiommu_devices:\n  - interface: ens2f0\n  - {vendor_device: "8086:1572", count: 2}\n'
            '  - {pf: ens1f0, vf: ["0-3"]}',
        ),
        "noiommu_sriov": Variable(
            kind=SRIOV_SPEC,
            adds_up=True,
            summary="How many virtual functions physical functions have, as the whole list.",
            more="See [virtual functions](guide.md#virtual-functions) and"
            " [their settings](guide.md#settings-of-single-virtual-functions).",
            keys={
                "pf": "the physical function, by its interface, MAC address or PCI address",
                "vfs": "how many virtual functions it has",
                "functions": "settings of single virtual functions, each entry with the keys below for some of them",
                "functions[].vf": 'their indexes, such as `["0-3"]`; without it, all of them',
                "functions[].mac": "the MAC address of the one virtual function that the entry means",
                "functions[].vlan": "the VLAN whose tag the card adds and removes, 1 to 4094; 0 is none",
                "functions[].qos": "with `vlan`: the priority in that tag, 0 (if not given) to 7",
                "functions[].vlan_protocol": "with `vlan`: `802.1Q` (if not given) or `802.1ad`",
                "functions[].trust": "whether its application may change its MAC address or receive what is for others",
                "functions[].spoof_check": "whether frames from another address than its own are dropped",
                "functions[].min_tx_rate": "the least rate of sending that it is given, in Mbit/s; 0 is none",
                "functions[].max_tx_rate": "the highest rate of sending, in Mbit/s; 0 is no limit",
                "functions[].link_state": "the link that it sees: `auto` (that of the port), `enable` or `disable`",
            },
            example="noiommu_sriov:\n  - pf: ens1f0\n    vfs: 4\n    functions:\n"
            '      - {vf: ["0"], mac: "52:54:00:aa:00:00", trust: true}\n      - {vlan: 100}',
        ),
        "noiommu_dpdk_pa_hint": Variable(
            _BOOLEAN,
            "Lets an x86 DPDK choose IOVA=PA by itself (backend `dkms`).",
            default="`true`",
            more="See [applications](guide.md#dpdk-and-other-applications-on-the-backend-dkms).",
        ),
    },
    "Memory": {
        "noiommu_hugepages": Variable(
            kind=POOLS_SPEC,
            adds_up=True,
            summary="Pools of hugepages, as the whole list.",
            more="What is no longer in the list gets its original count back."
            " See [memory](guide.md#memory-and-boot-parameters).",
            keys={
                "size": "the size of the pages: `2M`, `1G` or a number of bytes",
                "count": "how many pages",
                "node": "the NUMA node; without it, the kernel spreads the pages over all nodes",
            },
            example="noiommu_hugepages:\n  - {size: 2M, count: 512, node: 0}\n  - {size: 1G, count: 4, node: 1}",
        ),
        "noiommu_host_memory": Variable(
            {"type": "size"},
            "How much memory the pools must leave to the host.",
            default="a 16th of all memory, within bounds",
            more="At least `128M`. See [memory](guide.md#memory-and-boot-parameters).",
            example="noiommu_host_memory: 2G",
        ),
        "noiommu_hugepage_mounts": Variable(
            kind=MOUNTS_SPEC,
            adds_up=True,
            summary="Mounts of hugetlbfs, as the whole list.",
            keys={
                "path": "where it is mounted",
                "size": "the size of its pages, `2M` or `1G`",
                "mode": 'who may make files there, with a leading zero and in quotes; `"0770"` if not given',
                "uid": "the owner's number",
                "owner": "the owner's name",
                "gid": "the group's number",
                "group": "the group's name; it may be the group of `noiommu_access`",
                "limit": "the most that all files there may hold together, as a size",
            },
            example="noiommu_hugepage_mounts:\n  - {path: /dev/hugepages-1G, size: 1G, group: dataplane}",
        ),
    },
    "Access": {
        "noiommu_access": Variable(
            kind={"type": "dict", "options": GRANTS_SPEC},
            adds_up=True,
            summary="Who may use the devices, see [Access](guide.md#access).",
            default="root alone",
            more="`{}` revokes every grant.",
            keys={
                "group": "the group that may open the devices, created if it is missing; needed to grant anything",
                "gid": "the group's number, where it has to be the same on all hosts",
                "users": "users who become members of the group; they must exist",
                "memlock": "how much memory a member may lock: `unlimited` (if not given) or a number of bytes",
                "hugetlbfs": "whether the group may use `/dev/hugepages`, which it may if not given",
                "services": "systemd services of the data plane, each with the keys below",
                "services[].name": "the service's name",
                "services[].profile": "what the application is: " + _PROFILE,
                "services[].capabilities": _CAPABILITIES,
                "binaries": "programs that members of the group start, each with the keys below",
                "binaries[].path": "the program's absolute path",
                "binaries[].profile": "what the application is: " + _PROFILE,
                "binaries[].capabilities": _CAPABILITIES,
                "profile": "the profile of services and programs that have none; `dpdk` if not given",
                "capabilities": "the capabilities of those that have none",
            },
            example="noiommu_access:\n  group: dataplane\n  users: [alice]\n  memlock: unlimited\n"
            "  services:\n    - {name: forwarder, profile: dpdk}",
        ),
    },
    "The kernel module": {
        "noiommu_kmod_build": Variable(
            {"type": "str", "choices": ["on_host", "prebuilt"]},
            "Where the kernel module is built.",
            default="`on_host`",
            more="See [hosts without a compiler](guide.md#hosts-without-a-compiler).",
        ),
        "noiommu_kmod_build_host": Variable(_TEXT, "The host of the inventory that builds for hosts with `prebuilt`."),
        "noiommu_kmod_archives": Variable(
            _TEXT,
            "Where the control node keeps the built modules.",
            default="`~/.cache/noiommu-archives`",
        ),
        "noiommu_kmod_archive_keyring": Variable(
            _TEXT, "If set, only archives signed by a key in this keyring are used."
        ),
    },
    "Runs and reports": {
        "noiommu_report_dir": Variable(
            _TEXT,
            "Where the [report](report.md) is written on the control node.",
            default="`noiommu-report`",
        ),
        "noiommu_report_prune": Variable(
            _BOOLEAN,
            "Removes hosts that are not in the inventory from the [report](report.md#slices).",
            default="`true` outside of AWX",
        ),
        "noiommu_metrics_dir": Variable(
            _TEXT, "Where the report playbook writes each host's metrics on the host itself."
        ),
        "noiommu_batches": Variable(
            {"type": "raw"},
            "How many hosts a deploy works on at a time.",
            default='`["100%"]`',
            more="See [rolling over a fleet](guide.md#rolling-over-a-fleet).",
            example='-e \'{"noiommu_batches": [1, "10%", "100%"]}\'',
            extra=True,
        ),
        "noiommu_max_fail_percentage": Variable(
            {"type": "raw"},
            "How many hosts of a batch, in per cent, may fail before a deploy stops.",
            default="`100`",
            example="-e noiommu_max_fail_percentage=5",
            extra=True,
        ),
    },
}

VARIABLES: dict[str, Variable] = {name: one for section in SECTIONS.values() for name, one in section.items()}
