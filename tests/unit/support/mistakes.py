# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What operators get wrong in an inventory, each with what has to be said of it before any host is contacted."""

from __future__ import annotations

from typing import Any, NamedTuple

GRANTS = {"group": "dataplane", "users": ["ann"], "services": [{"name": "fwd", "profile": "dpdk"}], "gid": "990"}
MAC, OTHER_MAC = "52:54:00:12:34:56", "52:54:00:12:34:57"


class Mistake(NamedTuple):
    """Variables of one host, and the message; none if they are accepted."""

    variables: dict[str, Any]
    said: str = ""
    code: str = "declaration"

    @property
    def name(self) -> str:
        """What a test, and the host in a run, are called."""
        return " ".join("%s=%r" % item for item in self.variables.items())[:70]


def functions(*entries: dict[str, Any]) -> list[dict[str, Any]]:
    """Settings of the two virtual functions of an interface."""
    return [{"pf": "eth1", "vfs": 2, "functions": list(entries)}]


def misspelt(name: str, nearest: str, value: Any = None) -> Mistake:
    return Mistake({name: value}, "Write %s." % nearest, "unknown_variable")


def wrong(name: str, value: Any, said: str) -> Mistake:
    return Mistake({name: value}, said)


MISSPELT = [
    misspelt("noiommu_device", "noiommu_devices", []),
    misspelt("noiommu_hugepage", "noiommu_hugepages", []),
    misspelt("noiommu_acces", "noiommu_access", {}),
    misspelt("noiommu_maintainance", "noiommu_maintenance", "a new disk"),
    misspelt("noiommu_insecure_untill", "noiommu_insecure_until", "2030-01-01"),
    misspelt("noiommu_accept_unsave", "noiommu_accept_unsafe", True),
    misspelt("noiommu_Devices", "noiommu_devices", []),
    misspelt("noiomu_devices", "noiommu_devices", []),
    misspelt("no_iommu_devices", "noiommu_devices", []),
    misspelt("NOIOMMU_STATE", "noiommu_state", "absent"),
    # An ending is free, but these are meant for another variable.
    misspelt("noiommu_hugepages_mounts", "noiommu_hugepage_mounts", []),
    misspelt("noiommu_device_storage", "noiommu_devices", []),
    Mistake({"noiommu_qqqqqqqqqqqqqqqqq": 1}, "none is named like it", "unknown_variable"),
    Mistake({"noiommu_devices_": []}, "noiommu_devices", "unknown_variable"),
]
WRONG_BARS = [
    wrong("noiommu_devices", [{"slot": 4, "write_combining": [7]}], "[0].write_combining: '7' is not a choice of BARs"),
    wrong("noiommu_devices", [{"slot": 4, "write_combining": ["2", "all"]}], "[0].write_combining: '2, all' is not a"),
]
WRONG_GRANTS = [
    wrong("noiommu_access", {"group": "g", "memlok": 1}, ".memlok: there is no such key; did you mean memlock?"),
    wrong("noiommu_access", {"users": "ann", "services": [{"nam": "fwd"}]}, ".services[0].nam: there is no"),
    wrong("noiommu_access", {"services": ["fwd"]}, ".services[0]: expected a mapping with the keys name"),
    wrong("noiommu_access", {"users": [{"name": "ann"}]}, ".users[0]: expected a text"),
    wrong("noiommu_access", {"profile": "dpkd"}, ".profile: expected one of dpdk, spdk, ovs, custom"),
    wrong("noiommu_access", {"gid": "staff"}, ".gid: expected a whole number, found 'staff'"),
    wrong("noiommu_access", {"users": ["ann"]}, ": The grants name no group."),
    wrong("noiommu_access", {"gid": 500}, ": The grants name no group."),
    wrong("noiommu_access", {"group": "Data Plane"}, ".group: 'Data Plane' is not a group name."),
    wrong("noiommu_access", {**GRANTS, "memlock": "8G"}, ".memlock: '8G' is not an amount of locked"),
    wrong(
        "noiommu_access",
        {"group": "g", "services": [{"name": "fwd"}, {"name": "../fwd"}]},
        ".services[1]: '../fwd' is not the name of a systemd service.",
    ),
    wrong(
        "noiommu_access",
        {"group": "g", "profile": "custom", "services": [{"name": "fwd"}]},
        ".services[0]: The profile custom of fwd lists no capabilities.",
    ),
    wrong(
        "noiommu_access",
        {"group": "g", "binaries": [{"path": "/usr/bin/fwd", "profile": "custom", "capabilities": "net_raw,fly"}]},
        ".binaries[0]: There is no capability CAP_FLY.",
    ),
    wrong("noiommu_access", {"group": "g", "binaries": [{"path": "fwd"}]}, ".binaries[0]: 'fwd' is not an"),
    wrong("noiommu_access", {"group": "g", "hugetlbfs": "maybe"}, ".hugetlbfs: expected true or false, found 'maybe'"),
    wrong("noiommu_access", "dataplane", ": expected a mapping with the keys group"),
    wrong("noiommu_access", [GRANTS], ": expected a mapping with the keys group"),
]
WRONG_DEVICES = [
    wrong("noiommu_devices", [{"mac": MAC}, {"adress": "b"}], "[1].adress: there is no such key; did you"),
    wrong("noiommu_devices", [{"mac": MAC, "slot": "4"}], "[0]: mac and slot cannot be in one entry"),
    wrong("noiommu_devices", [{"count": 1}], "[0]: needs one of address, vendor_device"),
    wrong("noiommu_devices", [{"mac": MAC, "vf": [1]}], "[0]: vf needs pf"),
    wrong("noiommu_devices", ["0000:04:00.0"], "[0]: expected a mapping with the keys address"),
    wrong("noiommu_devices", '[{"mac": "a"}]', ': expected a list of mappings, found \'[{"mac": "a"}]\''),
    wrong("noiommu_devices", {"mac": MAC}, ": expected a list of mappings, found {'mac': "),
    wrong("noiommu_devices", True, ": expected a list of mappings, found True"),
    wrong("noiommu_devices", [{"mac": MAC}, {"address": "4:0.0"}], "[1].address: '4:0.0' is not a PCI address."),
    wrong("noiommu_devices", [{"address": "04:00.3-04:00.0"}], "[0].address: '04:00.3-04:00.0' is not a range"),
    wrong("noiommu_devices", [{"mac": "52:54:00"}], "[0].mac: '52:54:00' is not a MAC address."),
    wrong("noiommu_devices", [{"mac": 525400123456}], "[0].mac: '525400123456' is not a MAC address."),
    wrong("noiommu_devices", [{"vendor_device": "8086"}], "[0].vendor_device: '8086' is not a vendor:device pair."),
    wrong("noiommu_devices", [{"vendor_device": "8086:1572", "subsystem": "x"}], "[0].subsystem: 'x' is not a vendor"),
    wrong("noiommu_devices", [{"pf": "04:00"}], "[0].pf: '04:00' is not a PCI address."),
    wrong("noiommu_devices", [{"pf": "eth1", "vf": ["3-0"]}], "[0].vf: '3-0' is not an index of a virtual function."),
    wrong("noiommu_devices", [{"mac": MAC, "count": 0}], "[0].count: expected a number from 1, found 0"),
    wrong("noiommu_devices", [{"interface": ["eth1"]}], "[0].interface: expected a text, found ['eth1']"),
    wrong("noiommu_sriov", [{"pf": "eth1"}], "[0]: the key vfs is missing"),
    wrong("noiommu_sriov", [{"pf": "eth1", "vfs": -1}], "[0].vfs: expected a number from 0, found -1"),
    wrong("noiommu_sriov", [{"pf": "eth1", "vfs": "four"}], "[0].vfs: expected a whole number, found 'four'"),
    wrong("noiommu_sriov", {"eth1": 4}, ": expected a list of mappings, found {'eth1': 4}"),
    wrong("noiommu_sriov", functions({"spoofcheck": True}), "[0].functions[0].spoofcheck: there is no such key; did"),
    wrong("noiommu_sriov", functions({"vlan": "many"}), "[0].functions[0].vlan: expected a whole number, found 'many'"),
    wrong("noiommu_sriov", functions({"qos": 3}), "[0].functions[0]: qos needs vlan"),
    wrong(
        "noiommu_sriov",
        functions({"vlan": 3, "vlan_protocol": "802.1q"}),
        "[0].functions[0].vlan_protocol: expected one of 802.1Q, 802.1ad, found '802.1q'",
    ),
    wrong("noiommu_sriov", functions({"vlan": 4095}), "[0].functions[0].vlan: expected a whole number from 0 to 4094"),
    wrong("noiommu_sriov", functions({"vf": 0, "mac": "01" + MAC[2:]}), "[0].functions[0].mac: 01:54:00:12:34:56 is a"),
    wrong("noiommu_sriov", functions({"vf": "2", "trust": True}), "[0].functions[0].vf: there is no virtual function"),
]
WRONG_MEMORY = [
    wrong("noiommu_hugepages", [{"size": "2M"}], "[0]: the key count is missing"),
    wrong("noiommu_hugepages", [{"size": "2M", "count": "many"}], "[0].count: expected a whole number"),
    wrong("noiommu_hugepages", [{"size": "2M", "count": 1.5}], "[0].count: expected a whole number"),
    wrong("noiommu_hugepages", [{"size": "2M", "count": -1}], "[0]: A pool cannot have -1 pages."),
    wrong("noiommu_hugepages", [{"size": "two", "count": 1}], "[0]: 'two' is not a page size."),
    wrong("noiommu_hugepages", [{"size": "2M", "count": 1}] * 2, ": The pool 2M is declared twice."),
    wrong(
        "noiommu_hugepages",
        [{"size": "2M", "count": 1}, {"size": "2048K", "count": 1, "node": 0}],
        ": The size 2M is declared for the whole host and for a NUMA node.",
    ),
    wrong("noiommu_hugepages", 512, ": expected a list of mappings, found 512"),
    wrong("noiommu_hugepage_mounts", [{"path": "/mnt"}], "[0]: the key size is missing"),
    wrong("noiommu_hugepage_mounts", [{"path": "mnt", "size": "2M"}], "[0]: 'mnt' cannot be a mount point."),
    wrong("noiommu_hugepage_mounts", [{"path": "/m", "size": "2M", "mode": 770}], "[0]: '770' is not a mode."),
    wrong("noiommu_hugepage_mounts", [{"path": "/m", "size": "2M", "limit": "3M"}], "[0]: The limit of /m is not a"),
    wrong(
        "noiommu_hugepage_mounts",
        [{"path": "/m", "size": "2M"}, {"path": "/m/1", "size": "2M"}],
        ": /m and /m/1 are the same, or one is inside the other.",
    ),
    wrong("noiommu_host_memory", "64M", ": A host needs more memory than that."),
    wrong("noiommu_host_memory", "much", ": 'much' is not a page size."),
]
WRONG_SCALARS = [
    wrong("noiommu_reboot_ok", "maybe", ": expected true or false, found 'maybe'"),
    wrong("noiommu_accept_unsafe", ["true"], ": expected true or false, found ['true']"),
    wrong("noiommu_enable_iommu", 2, ": expected true or false, found 2"),
    wrong("noiommu_dpdk_pa_hint", "pa", ": expected true or false, found 'pa'"),
    wrong("noiommu_backend", "dkm", ": expected one of auto, iommu, builtin, dkms, found 'dkm'"),
    wrong("noiommu_kmod_build", "host", ": expected one of on_host, prebuilt, found 'host'"),
    wrong("noiommu_state", True, ": expected one of present, absent, found True"),
    wrong("noiommu_state", "abscent", ": expected one of present, absent, found 'abscent'"),
    wrong("noiommu_insecure_until", "31.1.2027", ": expected the last day as YYYY-MM-DD"),
    wrong("noiommu_insecure_until", "2027-02-30", ": expected the last day as YYYY-MM-DD"),
    wrong("noiommu_report_dir", ["a"], ": expected a text, found ['a']"),
    wrong("noiommu_metrics_dir", True, ": expected a text, found True"),
    wrong("noiommu_kmod_build_host", ["builder"], ": expected a text, found ['builder']"),
    wrong("noiommu_maintenance", {"why": "a disk"}, ": expected a text, found {'why': 'a disk'}"),
]
# Variables that add up.
WRONG_TOGETHER = [
    wrong("noiommu_devices_storage", None, ": is left empty: write [] or {} if it adds nothing"),
    wrong("noiommu_access_users", ["ann"], ": expected a mapping with the keys group"),
    wrong("noiommu_devices_state", "absent", ": expected a list of mappings, found 'absent'"),
    wrong("noiommu_devices_storage", [{"mac": MAC}, {"adress": "b"}], "[1].adress: there is no such key; did you"),
    Mistake(
        {"noiommu_devices": [{"mac": MAC}], "noiommu_devices_b": [{"slot": 4}, {"mac": MAC.upper()}]},
        "noiommu_devices_b[1]: noiommu_devices[0] has it too",
    ),
    Mistake(
        {"noiommu_sriov_a": [{"pf": "eth1", "vfs": 1}], "noiommu_sriov_b": [{"pf": "eth1", "vfs": 2}]},
        "noiommu_sriov_b[0]: noiommu_sriov_a[0] has it too",
    ),
    Mistake(
        {
            "noiommu_hugepage_mounts_a": [{"path": "/m", "size": "2M"}],
            "noiommu_hugepage_mounts_b": [{"path": "/m", "size": "1G"}],
        },
        "noiommu_hugepage_mounts_b[0]: noiommu_hugepage_mounts_a[0] has it too",
    ),
    Mistake(
        {"noiommu_access": {"group": "g", "memlock": 4096}, "noiommu_access_b": {"memlock": "unlimited"}},
        "noiommu_access_b.memlock: found 'unlimited', but noiommu_access.memlock says '4096'",
    ),
    Mistake(
        {"noiommu_access_a": {"group": "g"}, "noiommu_access_b": {"group": "h"}},
        "noiommu_access_b.group: found 'h', but noiommu_access_a.group says 'g'",
    ),
    Mistake(
        {"noiommu_access_a": GRANTS, "noiommu_access_b": {"services": [{"name": "fwd"}]}},
        "noiommu_access_b.services[0]: noiommu_access_a.services[0] has it too",
    ),
    Mistake({"noiommu_access_a": {"users": ["ann"]}, "noiommu_access_b": {}}, "noiommu_access_a: The grants name no"),
]
MISTAKES = MISSPELT + WRONG_BARS + WRONG_GRANTS + WRONG_DEVICES + WRONG_MEMORY + WRONG_SCALARS + WRONG_TOGETHER
ACCEPTED = [
    Mistake({name: value})
    for name, value in (
        ("noiommu_devices", [{"mac": MAC}, {"vendor_device": "8086:10d3", "count": "2"}]),
        ("noiommu_devices", [{"pf": "eth1", "vf": [0, "2-3"]}, {"slot": 4}, {"slot": 4.1}]),
        ("noiommu_devices", [{"pf": "52-54-00-12-34-56", "vf": "0-3"}, {"address": "04:00.0-04:00.3,0000:05:00.0"}]),
        ("noiommu_devices", [{"mac": MAC, "address": None}]),
        ("noiommu_devices", [{"slot": 4, "write_combining": [2, "4"]}, {"slot": 5, "write_combining": "prefetchable"}]),
        ("noiommu_devices", [{"slot": 4, "write_combining": 2}, {"slot": 5, "write_combining": []}]),
        ("noiommu_devices", []),
        ("noiommu_devices", ""),
        ("noiommu_devices", None),
        ("noiommu_devices_storage", [{"mac": MAC}]),
        ("noiommu_devices_storage", []),
        ("noiommu_sriov", [{"pf": "eth1", "vfs": 4}]),
        ("noiommu_sriov", [{"pf": "eth1", "vfs": "4", "functions": [{"vf": 0, "mac": MAC}, {"vlan": "7", "qos": 1}]}]),
        ("noiommu_sriov", [{"pf": "eth1", "vfs": 4, "functions": [{"vf": "0,2-3", "trust": "yes"}]}]),
        ("noiommu_hugepages", [{"size": "2M", "count": 512}, {"size": 1073741824, "count": "4", "node": 0}]),
        ("noiommu_hugepage_mounts", [{"path": "/mnt/huge", "size": "2M", "mode": "0770", "group": "dataplane"}]),
        ("noiommu_hugepage_mounts", [{"path": "~/huge", "size": "2M"}]),
        ("noiommu_host_memory", "512M"),
        ("noiommu_access", GRANTS),
        ("noiommu_access", {**GRANTS, "users": "ann", "memlock": 8589934592, "hugetlbfs": "no"}),
        ("noiommu_access", {}),
        ("noiommu_accept_unsafe", "yes"),
        ("noiommu_reboot_ok", 1),
        ("noiommu_reboot_ok", False),
        ("noiommu_insecure_until", "2027-01-31"),
        ("noiommu_maintenance", False),
        ("noiommu_state", "absent"),
        # Other people's names.
        ("noiommu", 1),
        ("iommu_devices", []),
        ("our_noiommu_devices", []),
    )
] + [
    Mistake({"noiommu_devices_a": [{"mac": MAC}], "noiommu_devices_b": [{"mac": OTHER_MAC}]}),
    Mistake({"noiommu_access_a": {"group": "g"}, "noiommu_access_b": {"group": "g", "users": ["ann"]}}),
    Mistake({"noiommu_access_a": {"users": ["ann"]}, "noiommu_access": {"group": "g", "users": ["ann"]}}),
    Mistake({"noiommu_hugepages_a": [{"size": "2M", "count": 1}], "noiommu_hugepages_b": [{"size": "2M", "count": 1}]}),
]
