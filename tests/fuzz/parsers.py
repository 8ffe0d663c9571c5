# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every parser of what a host, a build host or an operator says, each with samples of what it is meant for."""

from __future__ import annotations

import gzip
import json
import lzma
import os
import struct
from pathlib import Path
from typing import Any, Callable, NamedTuple

from ansible_collections.baremetal.noiommu.plugins.module_utils._access import declared as access_declared
from ansible_collections.baremetal.noiommu.plugins.module_utils._access import file_capabilities, profiles, services
from ansible_collections.baremetal.noiommu.plugins.module_utils._access import record as access_record
from ansible_collections.baremetal.noiommu.plugins.module_utils._base import times
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.fs import Root
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.paths import (
    ACCESS_RECORD,
    BINDINGS,
    CMDLINE_RECORD,
    HUGEPAGES_RECORD,
    HUGETLB_MOUNTS_RECORD,
    ORIGINALS,
)
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.records import load_json, sift
from ansible_collections.baremetal.noiommu.plugins.module_utils._cmdline.record import CommandLineRecord
from ansible_collections.baremetal.noiommu.plugins.module_utils._cmdline.words import parse as parse_words
from ansible_collections.baremetal.noiommu.plugins.module_utils._cmdline.words import split
from ansible_collections.baremetal.noiommu.plugins.module_utils._devices import schemas
from ansible_collections.baremetal.noiommu.plugins.module_utils._devices.originals import Originals
from ansible_collections.baremetal.noiommu.plugins.module_utils._dkms import archive, signing, source
from ansible_collections.baremetal.noiommu.plugins.module_utils._host import (
    accounts,
    addressing,
    bpf_redirects,
    capabilities,
    declared_disks,
    hugetlb,
    iommu,
    kernel_config,
    kernels,
    modprobe,
    modules,
    mounts,
    netlink,
    network_config,
    packet_filter,
    packet_sockets,
    pci,
    sockets,
    sysctl,
    taint,
    traffic_control,
    units,
)
from ansible_collections.baremetal.noiommu.plugins.module_utils._hugepages import floor
from ansible_collections.baremetal.noiommu.plugins.module_utils._hugepages import originals as hugepage_originals
from ansible_collections.baremetal.noiommu.plugins.module_utils._hugepages.declared import (
    parse_pools,
    unit_name,
)
from ansible_collections.baremetal.noiommu.plugins.module_utils._policy import acceptance, undeclared
from ansible_collections.baremetal.noiommu.plugins.module_utils._policy.backend import choose
from ansible_collections.baremetal.noiommu.plugins.module_utils._report import fleet, metrics, verify
from ansible_collections.baremetal.noiommu.plugins.plugin_utils import answers, declared
from ansible_collections.baremetal.noiommu.tests.unit.plugins.module_utils._host import test_netlink as captured

RELEASE = "6.1.0-57-amd64"
NIC = "0000:04:00.0"
MAC = "52:54:00:12:34:56"


class OfFile(NamedTuple):
    """A parser of a file; ``call`` gets the root whose file at ``path`` was mutated."""

    path: str
    samples: list[str | bytes]
    call: Callable[[Root], Any]


class OfBytes(NamedTuple):
    """A parser of bytes."""

    samples: list[bytes]
    call: Callable[[bytes], Any]


class OfText(NamedTuple):
    """A parser of a text."""

    samples: list[str]
    call: Callable[[str], Any]


class OfData(NamedTuple):
    """A parser of what came from JSON or YAML."""

    samples: list[Any]
    call: Callable[[Any], Any]


def _record(**content: Any) -> str:
    return json.dumps({"version": 1, **content})


INTERFACE = {"name": "eth1", "mac": MAC, "up": True, "mtu": 1500}
ORIGINAL = {
    "vendor_device": "8086:10d3",
    "driver": "e1000e",
    "driver_override": None,
    "interfaces": [INTERFACE],
    "serials": ["52-54-00-ff-ff-12-34-56"],
    "slot": "4",
}
BINDING = {"address": NIC, "vendor_device": "8086:10d3", "macs": [MAC], "slot": "4"}
STORED = _record(
    backend="dkms",
    driver="vfio-pci",
    dpdk_pa_hint=True,
    devices=[BINDING, {**BINDING, "vf": {"pf": NIC, "macs": [MAC], "index": 0}}],
    sriov=[{**BINDING, "vfs": 4}],
    insecure_since="2026-01-31T12:00:00Z",
    insecure_until="2027-01-31",
)
TAINT = {"flags": [], "insecure_passthrough": False}
HOST = {
    "preflight_info": {
        "verdict": {"backend": "dkms", "safe": False, "ok": True, "refusals": [], "warnings": ["x"]},
        "kernel": {"release": RELEASE},
        "os": {"id": "debian", "version_id": "12"},
        "insecure": {"active": True, "since": "2026-01-31T12:00:00Z", "until": "2027-01-31", "expired": False},
        "taint": {"mask": 64, "flags": [{"bit": 6, "letter": "U", "name": "user", "attribution": [{"name": "x"}]}]},
        "devices": [{"address": NIC, "selected": True, "driver": "vfio-pci", "group": 1, "safety": "unsafe"}],
        "hugepages": [{"size": "2M", "node": None, "count": 4, "free": 4}],
        "module_signing": {"enforced": True, "enrolled": "no", "certificate": "/x"},
    },
    "hugepages_result": {"changed": True, "before": {"2M": 1}, "after": {"2M": 2}, "diff": [{"before_header": "x"}]},
    "compare_failure": {"msg": "x", "refusals": [{"code": "a", "message": "b", "evidence": ["c"], "remedy": "d"}]},
}
CPUINFO = "processor\t: 0\nvendor_id\t: AuthenticAMD\nflags\t\t: fpu sme tdx_guest\n"
UNIT = (
    "[Unit]\nAfter=a.service\n[Service]\nUser=ovs\nCapabilityBoundingSet=~CAP_SYS_ADMIN \\\n CAP_X\n"
    "DeviceAllow=/dev/x rw\n"
)
MOUNTINFO = "30 1 0:30 / /mnt/huge rw,relatime shared:1 - hugetlbfs hugetlbfs rw,pagesize=2M\n"
TCP = (
    "  sl  local_address rem_address   st\n   0: 0100007F:0016 00000000:0000 0A\n"
    "   1: 0100007F:0016 0200007F:C350 01 00000000:00000000\n"
)
SYSFS = "/sys/bus/pci/devices/" + NIC
MODULE = "/lib/modules/" + RELEASE


def _bus(root: Root) -> pci.PciBus:
    return pci.PciBus(root)


def _devices(root: Root) -> list[Any]:
    return [
        (d.class_code, d.driver, d.numa_node, d.iommu_group, d.serials, d.interfaces, d.functions, d.vendor_device)
        for d in _bus(root)
    ]


def _sifted(root: Root) -> Any:
    stored = load_json(root, BINDINGS, schemas.BINDINGS) or {}
    return sift(stored.get("devices", []), schemas.BINDING, "devices")


def _verified(root: Root) -> None:
    code = verify.main(["--json"], root)
    assert code in (verify.OK, verify.DRIFTED, verify.UNKNOWN)


def _unit(root: Root) -> Any:
    unit = units.read_unit(root, "fwd.service")
    if unit is not None:
        grants = profiles.needs("dpdk", "dkms", profiles.SERVICE, True, [])
        services.refusals(root, "fwd.service", unit, grants)
        services.unserved(root, unit, 990, "unlimited", grants)
    return unit and (unit.bounding, unit.as_root)


def _reported(registered: Any) -> None:
    record = fleet.host_record("host", registered if isinstance(registered, dict) else {})
    report = fleet.fleet([record], "2026-01-31T12:00:00Z")
    fleet.render_json(report)
    fleet.render_page(report, {"page": "@@data@@", "style": "", "script": ""})
    metrics.render(record, 0.0)


def _pools(entries: Any) -> Any:
    return parse_pools(hugetlb.Pools(Root("/nowhere")), entries)


def _mentions(root: Root) -> Any:
    return network_config.mentions(root, network_config.Identity(frozenset({"eth1"}), frozenset({MAC}), NIC))


FILES: dict[str, OfFile] = {
    "originals": OfFile(
        ORIGINALS, [_record(devices={NIC: ORIGINAL}, parameters={}, modules=["noiommu"])], Originals.load
    ),
    "bindings": OfFile(BINDINGS, [STORED], _sifted),
    "bindings of the acceptance": OfFile(
        BINDINGS, [STORED], lambda root: acceptance.report(root, TAINT, None, times.utc_now())
    ),
    "bindings of what is undeclared": OfFile(
        BINDINGS, [STORED], lambda root: undeclared.undeclared(root, undeclared.KINDS)
    ),
    "bindings of the backend": OfFile(BINDINGS, [STORED], lambda root: choose(root, "auto", True)),
    "verify: bindings": OfFile(BINDINGS, [STORED], _verified),
    "verify: access": OfFile(
        ACCESS_RECORD, [_record(group="dpdk", users_added=["ann"], services=["a.service"])], _verified
    ),
    "verify: mounts": OfFile(HUGETLB_MOUNTS_RECORD, [_record(mounts={"/mnt": []})], _verified),
    "access": OfFile(
        ACCESS_RECORD,
        [
            _record(
                group="dpdk",
                group_made=True,
                users_added=["ann"],
                services=["fwd.service"],
                hugetlbfs=["/dev/hugepages", 0, 0, 493],
                binaries={"/usr/bin/x": {"inode": 5, "before": [0, 0, 493, None], "mode": 488, "capabilities": "00"}},
            )
        ],
        access_record.read,
    ),
    "pools": OfFile(HUGEPAGES_RECORD, [_record(counts={"2097152": {"0": 3, "host": 4}})], hugepage_originals.read),
    "boot parameters": OfFile(
        CMDLINE_RECORD,
        [
            _record(
                owners={"custom": {"parameters": ["a=b"], "without": []}}, lines=[["", "a b"]], source="grub", made=[]
            )
        ],
        CommandLineRecord.load,
    ),
    "group": OfFile("/etc/group", ["root:x:0:\ndpdk:x:990:ann,bob\n"], accounts.read_groups),
    "cpuinfo": OfFile("/proc/cpuinfo", [CPUINFO], addressing.is_encrypted),
    "kernel log": OfFile(
        "/dev/kmsg",
        [
            "6,1,10,-;noiommu: loading out-of-tree module taints kernel.\n SUBSYSTEM=pci\n"
            "4,2,99,-;WARNING: CPU: 1 PID: 7 at x.c:1\n"
        ],
        taint.report,
    ),
    "boot time": OfFile("/proc/stat", ["cpu 1 2\nbtime 1700000000\n"], taint.report),
    "taint mask": OfFile("/proc/sys/kernel/tainted", ["12352\n"], taint.report),
    "taint of a module": OfFile("/sys/module/noiommu/taint", ["OE\n"], taint.report),
    "mountinfo": OfFile(mounts.MOUNTS, [MOUNTINFO], lambda root: mounts.mount_of(root, "/mnt/huge/x")),
    "fstab": OfFile(
        "/etc/fstab",
        ["UUID=1-2 / ext4 rw 0 1\nhost:/x /var/lib nfs _netdev 0 0\n/dev/sda1 none swap sw\n"],
        lambda root: (mounts.late_mount(root, "/var/lib/noiommu"), list(declared_disks.named_disks(root))),
    ),
    "crypttab": OfFile(
        "/etc/crypttab", ["data UUID=1234 none luks\n"], lambda root: list(declared_disks.named_disks(root))
    ),
    "sysctl": OfFile(
        "/etc/sysctl.d/a.conf", ["-vm/nr_hugepages = 12\n# x\n"], lambda root: sysctl.setting(root, "vm.nr_hugepages")
    ),
    "modprobe": OfFile(
        "/etc/modprobe.d/a.conf",
        ["options vfio-pci ids=8086:10d3 \\\n x=y\n"],
        lambda root: modprobe.module_options(root, "vfio-pci"),
    ),
    "unit": OfFile("/etc/systemd/system/fwd.service", [UNIT], _unit),
    "drop-in": OfFile("/etc/systemd/system/fwd.service.d/a.conf", [UNIT], _unit),
    "Open vSwitch": OfFile(
        "/etc/default/openvswitch-switch", ["OVS_CTL_OPTS='--ovs-user=ovs:ovs \\\n --x'\n"], services.ovs_refusals
    ),
    "status of a process": OfFile(
        "/proc/7/status", ["Name:\tfwd\nUid:\t0\t0\nCapPrm:\t000001ffffffffff\nGroups:\t990 \n"], _unit
    ),
    "limits of a process": OfFile("/proc/7/limits", ["Max locked memory         65536   65536   bytes\n"], _unit),
    "kernel configuration": OfFile(
        "/boot/config-" + RELEASE,
        ['CONFIG_VFIO_NOIOMMU=y\nCONFIG_CC_VERSION_TEXT="gcc-12 (Debian) 12"\n'],
        lambda root: (kernel_config.vfio_noiommu_config(root, RELEASE), kernels.compiler(root, RELEASE)),
    ),
    "config.gz": OfFile(
        "/proc/config.gz",
        [gzip.compress(b"CONFIG_VFIO_NOIOMMU=y\n", mtime=0)],
        lambda root: (kernel_config.vfio_noiommu_config(root, RELEASE), kernels.read_config(root, RELEASE)),
    ),
    "lockdown": OfFile("/sys/kernel/security/lockdown", ["none [integrity]\n"], kernel_config.lockdown),
    "modules.dep": OfFile(
        MODULE + "/modules.dep",
        ["kernel/drivers/vfio/vfio-pci.ko.xz: kernel/drivers/vfio/vfio.ko\n"],
        lambda root: (modules.module_installed(root, "vfio-pci", RELEASE), modules.dependencies(root, "vfio-pci")),
    ),
    "os-release": OfFile("/etc/os-release", ['ID=debian\nVERSION_ID="12"\nID_LIKE="a b"\n'], kernels.read_os),
    "osrelease": OfFile("/proc/sys/kernel/osrelease", [RELEASE + "\n"], kernels.running),
    "meminfo": OfFile(
        "/proc/meminfo",
        ["MemTotal: 16 kB\nMemFree: 8 kB\nSwapFree: 1 kB\nHugepagesize: 2048 kB\n"],
        lambda root: (hugetlb.Pools(root).memory(None), hugetlb.Pools(root).default_size),
    ),
    "a pool": OfFile(
        "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", ["12\n"], lambda root: hugetlb.Pools(root).report()
    ),
    "class of a device": OfFile(SYSFS + "/class", ["0x020000\n"], _devices),
    "NUMA node": OfFile(SYSFS + "/numa_node", ["-1\n"], _devices),
    "configuration space": OfFile(
        SYSFS + "/config", [bytes(256) + b"\x03\0\1\0" + b"\1\2\3\4\5\6\7\10" + bytes(60)], _devices
    ),
    "address of an interface": OfFile(SYSFS + "/net/eth1/address", [MAC + "\n"], _devices),
    "type of an interface": OfFile(SYSFS + "/net/eth1/type", ["32\n"], _devices),
    "number of VFs": OfFile(SYSFS + "/sriov_numvfs", ["2\n"], _devices),
    "reserved regions": OfFile(
        "/sys/kernel/iommu_groups/1/reserved_regions", ["0xfee00000 0xfeefffff msi\n0x0 0x1 direct\n"], iommu.host_iommu
    ),
    "type of a group": OfFile(
        "/sys/kernel/iommu_groups/1/type", ["DMA-FQ\n"], lambda root: iommu.group_report(root, _bus(root))
    ),
    "TCP connections": OfFile(
        "/proc/net/tcp", [TCP], lambda root: list(sockets.parse_table("tcp", root.read_text("/proc/net/tcp") or ""))
    ),
    "DKMS certificate": OfFile("/var/lib/dkms/mok.pub", [bytes.fromhex("308203063082") + bytes(200)], signing.read),
    "enrolled keys": OfFile(
        "/proc/keys",
        ["1a2b I------ 1 perm 1f030000 0 0 asymmetri DKMS: aa: X509.rsa bb []\n"],
        signing.read,
    ),
    "interfaces": OfFile(
        "/etc/network/interfaces",
        ["auto eth1\niface eth1 inet static\n  address 192.0.2.1/24\nsource x/*\n"],
        _mentions,
    ),
    "netplan": OfFile(
        "/etc/netplan/a.yaml",
        ["network:\n  ethernets:\n    eth1:\n      match: {macaddress: 52:54:00:12:34:56}\n"],
        _mentions,
    ),
    "networkd": OfFile(
        "/etc/systemd/network/a.network",
        ["[Match]\nName=eth1 !eth2\nMACAddress=52:54:00:12:34:56\n"],
        _mentions,
    ),
    "NetworkManager": OfFile(
        "/etc/NetworkManager/system-connections/a.nmconnection",
        ["[connection]\ninterface-name=eth1\n[ethernet]\nmac-address=52:54:00:12:34:56\n"],
        _mentions,
    ),
}


def _message(kind: int, header: bytes, *attributes: bytes) -> bytes:
    """Return a message of rtnetlink."""
    body = header + b"".join(attributes)
    return struct.pack("=IHHII", 16 + len(body), kind, 2, 1, 0) + body


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


LINKS = _message(
    16, struct.pack("=BBHiII", 0, 0, 1, 2, 1, 0), _attribute(3, b"eth1\0"), _attribute(5, b"\3\0\0\0"),
    _attribute(18, _attribute(1, b"macvlan\0")),
)  # fmt: skip
SOCKETS = _message(
    20, struct.pack("=BBHI8x", 17, 3, 768, 99), _attribute(0, struct.pack("=I12x", 2)), _attribute(9, b"x" * 8)
)
HOOKS = _message(36, struct.pack("=BBHiIII", 0, 0, 0, 2, 0, 0, 0), _attribute(1, b"ingress\0"))
MIRRED = _attribute(2, _attribute(2, struct.pack("=I20xI", 1, 2)))
ACTIONS = _message(50, bytes(4), _attribute(1, _attribute(1, MIRRED)))
PREBUILT = archive.pack(archive.Archive("noiommu", "1", "a" * 64, RELEASE, "x86_64", {"noiommu.ko": b"x"}, b"x", None))
BYTES: dict[str, OfBytes] = {
    "routes": OfBytes([captured.ROUTES4, captured.ROUTES6], netlink.parse_routes),
    "addresses": OfBytes([captured.ADDRESSES], netlink.parse_addresses),
    "nexthops": OfBytes([captured.NEXTHOPS], netlink.parse_nexthops),
    "links": OfBytes([LINKS], netlink.parse_links),
    "packet sockets": OfBytes([SOCKETS], packet_sockets.parse_packet_sockets),
    "queueing disciplines": OfBytes([HOOKS], traffic_control.parse_hooks),
    "traffic control actions": OfBytes([ACTIONS], traffic_control.parse_redirections),
    "kernel symbols": OfBytes(
        [b"ffffffff81000000 T __bpf_call_base\nffffffff81000100 T bpf_redirect\n"], bpf_redirects.parse_symbols
    ),
    "BPF program": OfBytes(
        [bytes.fromhex("b701000002000000850000000001000095000000000000")],
        lambda data: bpf_redirects.may_redirect(data, {256: False}, False),
    ),
    "packet filter": OfBytes(
        [bytes.fromhex("28000000000c000015000001080600000600000000000400")], packet_filter.accepts_traffic
    ),
    "prebuilt archive": OfBytes([PREBUILT], lambda data: archive.unpack(data, "archive")),
    "tar of a prebuilt archive": OfBytes(
        [gzip.decompress(PREBUILT)], lambda data: archive.unpack(gzip.compress(data, 1), "archive")
    ),
    "tar of a source": OfBytes(
        [gzip.decompress(source.pack({"Kbuild": b"x", "a.c": b"y"}))],
        lambda data: source.unpack(gzip.compress(data, 1)),
    ),
    "signature of a module": OfBytes(
        [bytes(40) + b"~Module signature appended~\n"], lambda data: signing.is_signed(data, "x.ko")
    ),
    "module in xz": OfBytes([lzma.compress(bytes(40))], lambda data: signing.is_signed(data, "x.ko.xz")),
    "module in gz": OfBytes([gzip.compress(bytes(40), mtime=0)], lambda data: signing.is_signed(data, "x.ko.gz")),
    "certificate": OfBytes([bytes.fromhex("308203063082") + bytes(200)], signing.key_id),
}
TEXTS: dict[str, OfText] = {
    "PCI address": OfText([NIC, "04:00.0"], pci.normalise_bdf),
    "page size": OfText(["2M", "1GiB", "2048kB"], hugetlb.parse_size),
    "kernel release": OfText([RELEASE], lambda text: kernels.require_release(text, "here")),
    "version of a kernel": OfText([RELEASE], kernels.version_key),
    "memlock": OfText(["unlimited", "8589934592"], access_declared.parse_memlock),
    "capability": OfText(["CAP_SYS_RAWIO"], lambda text: capabilities.parse([text])),
    "capabilities of a file": OfText(
        ["0100000200402000000000000000000000000000"], lambda text: file_capabilities.permitted(text, "/x")
    ),
    "name of a service": OfText(["fwd@a.service"], units.full_name),
    "boot parameters in words": OfText(['a=b c="d e" f'], split),
    "boot parameter": OfText(["a=b", "hugepagesz=1G hugepages=4"], lambda text: parse_words([text], ["x" + text])),
    "date": OfText(["2027-01-31"], acceptance.end_of),
    "mount point": OfText(["/mnt/huge-2M/a b"], unit_name),
    "floor": OfText(["8G"], floor.parse_floor),
    "unescaped": OfText(["/mnt/a\\040b"], mounts.unescape),
    "name of a report": OfText(["host-1.example"], fleet.file_name),
}
DATA: dict[str, OfData] = {
    "fleet report": OfData([HOST], _reported),
    "answer": OfData(
        [{"changed": True, "ansible_facts": {"discovered_interpreter_python": "/x"}, "x": [1]}],
        lambda data: answers.require_harmless(data if isinstance(data, dict) else {}),
    ),
    "kernels of an answer": OfData([[RELEASE, "6.12.0"]], lambda data: answers.require_releases(data, "kernels")),
    "reasons of a build host": OfData([{"failed_kernels": {RELEASE: ["a"]}, "item": "b"}], answers.lines),
    "declaration": OfData(
        [
            {
                "noiommu_devices": [{"mac": MAC}, {"pf": "eth1", "vf": ["0-3"], "count": 2}],
                "noiommu_hugepages": [{"size": "2M", "count": 4, "node": 0}],
                "noiommu_hugepage_mounts": [{"path": "/mnt", "size": "2M"}],
                "noiommu_access": {"group": "g", "users": ["a"], "services": [{"name": "x"}], "memlock": "unlimited"},
                "noiommu_sriov": [{"pf": "eth1", "vfs": 4}],
                "noiommu_reboot_ok": "yes",
                "noiommu_insecure_until": "2027-01-31",
            }
        ],
        lambda data: declared.refusals(data if isinstance(data, dict) else {}),
    ),
    "record of a device": OfData([ORIGINAL], lambda data: sift([data], schemas.ORIGINAL, "devices")),
}
PARSERS: dict[str, OfFile | OfBytes | OfText | OfData] = {**FILES, **BYTES, **TEXTS, **DATA}


def lay_out(folder: Path) -> Root:
    """Make a host on which each of these files is looked at."""
    contents: dict[str, str | bytes] = {parser.path: parser.samples[0] for parser in FILES.values()}
    contents.update(
        {"/proc/7/cgroup": "0::/system.slice/fwd.service\n", SYSFS + "/vendor": "0x8086", SYSFS + "/device": "0x10d3"}
    )
    for path, text in contents.items():
        (folder / path.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
        (folder / path.lstrip("/")).write_bytes(text if isinstance(text, bytes) else text.encode())
    (folder / "sys/class/net").mkdir(parents=True, exist_ok=True)
    os.symlink("../../bus/pci/devices/%s/net/eth1" % NIC, folder / "sys/class/net/eth1")
    return Root(str(folder))
