# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Guards of storage: a disk in use is found through every layer that may hide it."""

from __future__ import annotations

import os

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.fs import Root
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.disks import Disks
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.pci import PciBus
from ansible_collections.baremetal.noiommu.plugins.module_utils._policy.guard_context import GuardContext
from ansible_collections.baremetal.noiommu.plugins.module_utils._policy.guards import check
from ansible_collections.baremetal.noiommu.tests.unit.support.guarding import NIC, guards, kinds
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree

DISK = "0000:00:06.0"


@pytest.fixture
def disk(tree: Tree) -> Tree:
    tree.pci(DISK, "1af4:1042", "010000", driver="virtio-pci")
    real = tree.block("vda", tree.real(DISK) + "/virtio1/block", "254:0")
    tree.block("vda1", real, "254:1")
    tree.mounts(("0:22", "/sys", "sysfs"))
    return tree


def test_an_unused_disk_is_free(disk: Tree) -> None:
    assert guards(disk, DISK) == []


def test_a_mounted_partition_counts(disk: Tree) -> None:
    disk.mounts(("254:1", "/srv/my\\040data", "/dev/root"))
    found = guards(disk, DISK)
    assert kinds(found) == ["mount"]
    assert found[0].evidence == ["vda1 (254:1) is mounted on /srv/my data"]


def test_without_privileges_the_own_mount_table_is_read(disk: Tree) -> None:
    disk.mounts(("254:1", "/srv", "/dev/root"))
    disk.at("/proc/self").mkdir()
    disk.at("/proc/1/mountinfo").rename(disk.at("/proc/self/mountinfo"))
    assert kinds(guards(disk, DISK)) == ["mount"]


def test_a_mount_is_found_by_its_source_too(disk: Tree) -> None:
    disk.file("/dev/vda1")
    disk.link("/dev/disk/by-uuid/1234", "/dev/vda1")
    disk.mounts(("0:40", "/data", "/dev/disk/by-uuid/1234"))
    assert kinds(guards(disk, DISK)) == ["mount"]


def test_lvm_on_raid_on_a_partition_counts(disk: Tree) -> None:
    disk.hold("md0", "9:0", "vda1")
    disk.hold("dm-3", "253:3", "md0")
    disk.mounts(("253:3", "/var", "/dev/mapper/vg-var"))
    assert guards(disk, DISK)[0].evidence == ["dm-3 on md0 on vda1 (253:3) is mounted on /var"]


def test_a_partition_of_a_raid_counts(disk: Tree) -> None:
    disk.block("md0p2", disk.hold("md0", "9:0", "vda"), "259:2")
    disk.mounts(("259:2", "/boot", "/dev/md0p2"))
    assert kinds(guards(disk, DISK)) == ["mount"]


def test_swap_counts_directly_and_through_lvm(disk: Tree) -> None:
    disk.hold("dm-0", "253:0", "vda1")
    disk.file("/proc/swaps", "Filename Type Size Used Priority\n/dev/dm-0 partition 1 0 -2\n/swapfile file 1 0 -3")
    found = guards(disk, DISK)
    assert kinds(found) == ["swap"] and found[0].evidence == ["dm-0 on vda1 is in /proc/swaps"]


def test_nvme_multipath_hides_the_disk_below_its_subsystem(tree: Tree) -> None:
    tree.pci(DISK, "144d:a808", "010802", driver="nvme")
    controller = tree.real(DISK) + "/nvme/nvme0"
    tree.dir(controller)
    tree.link("/sys/class/nvme/nvme0", controller)
    subsystem = "/sys/devices/virtual/nvme-subsystem/nvme-subsys0"
    tree.block("nvme0n1", subsystem, "259:0")
    tree.link(subsystem + "/nvme0", controller)
    tree.link("/sys/class/nvme-subsystem/nvme-subsys0", subsystem)
    tree.mounts(("259:0", "/", "/dev/nvme0n1"))
    assert kinds(guards(tree, DISK)) == ["mount"]


def test_every_member_of_a_mounted_btrfs_counts(disk: Tree) -> None:
    disk.link("/sys/fs/btrfs/0f0f/devices/vda1", disk.root.realpath("/sys/class/block/vda1"))
    assert "belongs to a mounted btrfs" in guards(disk, DISK)[0].evidence[0]


def test_a_disk_in_use_without_a_trace_in_sysfs_counts(disk: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Disks, "is_claimed", lambda self, name: name == "vda1")
    found = guards(disk, DISK)
    assert kinds(found) == ["disk_in_use"] and "ZFS" in found[0].remedy


def test_a_disk_behind_a_controller_that_is_its_own_pci_domain_counts(tree: Tree) -> None:
    tree.pci("0000:00:0e.0", "8086:467f", "010400", driver="vmd")
    inner = tree.pci("10000:01:00.0", "144d:a808", "010802", driver="nvme", below=tree.real("0000:00:0e.0"))
    tree.block("nvme0n1", inner + "/nvme/nvme0", "259:0")
    tree.mounts(("259:0", "/", "/dev/nvme0n1"))
    assert kinds(guards(tree, "0000:00:0e.0")) == ["mount"]


def test_a_disk_that_something_holds_is_in_use_mounted_or_not(disk: Tree) -> None:
    disk.hold("dm-0", "253:0", "vda1")
    disk.file("/sys/class/block/dm-0/dm/name", "vg-root")
    found = guards(disk, DISK)
    assert kinds(found) == ["disk_in_use"] and found[0].evidence == ["vda1 is held by dm-0 (vg-root)"]


@pytest.mark.parametrize(
    "kind,guarded",
    [
        ("LVM2_member", True),
        ("linux_raid_member", True),
        ("ddf_raid_member", True),
        ("stratis", True),
        ("VMFS_volume_member", True),
        ("ext4", False),
    ],
)
def test_a_member_of_a_volume_that_nobody_uses_counts(disk: Tree, kind: str, guarded: bool) -> None:
    disk.file("/run/udev/data/b254:1", "S:disk/by-id/x\nE:ID_FS_TYPE=%s\nG:systemd" % kind)
    found = guards(disk, DISK)
    assert kinds(found) == ["disk_member" if guarded else "disk_data"] and "wipefs" in found[0].remedy
    assert not guarded or found[0].evidence[0].startswith("vda1 is a member of ")


@pytest.mark.parametrize(
    "properties,evidence",
    [
        ("ID_FS_TYPE=ext4 ID_FS_USAGE=filesystem ID_FS_LABEL=data", "vda holds ext4 (filesystem, data)"),
        ("ID_FS_TYPE=xfs ID_FS_USAGE=filesystem", "vda holds xfs (filesystem)"),
        ("ID_FS_TYPE=crypto_LUKS ID_FS_USAGE=crypto", "vda holds crypto_LUKS (crypto)"),
        ("ID_FS_TYPE=DM_integrity ID_FS_USAGE=crypto", "vda holds DM_integrity (crypto)"),
        ("ID_FS_TYPE=swap ID_FS_USAGE=other", "vda holds swap (other)"),
        ("ID_FS_TYPE=something_of_tomorrow", "vda holds something_of_tomorrow (data)"),
        ("ID_FS_AMBIVALENT=filesystem:ext4:1.0", "vda holds several signatures: filesystem:ext4:1.0"),
        ("ID_PART_TABLE_TYPE=gpt", "vda holds a partition table (gpt)"),
        ("ID_PART_TABLE_TYPE=PMBR", "vda holds a partition table (PMBR)"),
    ],
)
def test_data_that_nobody_uses_counts_by_any_signature(disk: Tree, properties: str, evidence: str) -> None:
    disk.file("/run/udev/data/b254:0", "\n".join("E:" + line for line in properties.split()))
    found = guards(disk, DISK)
    assert kinds(found) == ["disk_data"] and found[0].evidence == [evidence] and "wipefs" in found[0].remedy


def test_a_partition_does_not_repeat_the_table_of_its_disk(disk: Tree) -> None:
    for number in ("254:0", "254:1"):
        disk.file("/run/udev/data/b" + number, "E:ID_PART_TABLE_TYPE=gpt")
    disk.file("/sys/class/block/vda1/partition", "1")
    assert guards(disk, DISK)[0].evidence == ["vda holds a partition table (gpt)"]


@pytest.mark.parametrize(
    "path,text",
    [
        ("/etc/crypttab", "data UUID=0f-12 none luks"),
        ("/etc/crypttab", "data /dev/sdz /key:UUID=0f-12 luks"),
        ("/etc/crypttab", "data /dev/sdz none luks,header=UUID=0f-12"),
        ("/etc/integritytab", "data PARTUUID=ab-01"),
        ("/etc/veritytab", "usr /dev/sdz /dev/vda1 0123abcd"),
        ("/etc/systemd/system/srv.mount", "[Mount]\nWhat=/dev/disk/by-uuid/0F-12\nWhere=/srv"),
        ("/run/systemd/generator.late/efi.mount", "[Mount]\nWhat = /dev/vda1\nWhere=/efi"),
        ("/usr/lib/systemd/system/dev-vda1.swap", "[Swap]\nWhat=/dev/vda1"),
        ("/etc/systemd/system/srv.mount.d/disk.conf", "[Mount]\nWhat=/dev/vda1"),
        ("/etc/auto.misc", "cd -fstype=ext4 :/dev/vda1"),
        ("/etc/initramfs-tools/conf.d/resume", "RESUME=UUID=0f-12"),
        ("/proc/cmdline", "quiet resume=/dev/vda1"),
        ("/proc/cmdline", "cryptdevice=UUID=0f-12:root quiet"),
    ],
)
def test_what_any_file_names_is_the_hosts(disk: Tree, path: str, text: str) -> None:
    disk.file("/dev/vda1")
    disk.link("/dev/disk/by-uuid/0F-12", "/dev/vda1")
    disk.link("/dev/disk/by-partuuid/ab-01", "/dev/vda1")
    disk.file(path, "# /dev/vda\n" + text)
    found = guards(disk, DISK)
    assert kinds(found) == ["mount"] and found[0].message.endswith("holds what %s names." % path)
    assert found[0].evidence[0].startswith("vda1 is named in %s: " % path) and path in found[0].remedy


def test_an_autofs_map_is_found_by_its_master(disk: Tree) -> None:
    disk.file("/dev/vda1")
    disk.file("/etc/auto.master.d/backup.autofs", "/backup file:/srv/maps/backup --timeout=60\n/net -hosts")
    disk.file("/srv/maps/backup", "* -fstype=ext4 :/dev/vda1")
    assert guards(disk, DISK)[0].evidence == ["vda1 is named in /srv/maps/backup: * -fstype=ext4 :/dev/vda1"]


@pytest.mark.parametrize("path", ["/proc/1/mountinfo", "/proc/swaps", "/etc/crypttab", "/run/udev/data/b254:1"])
def test_what_a_guard_reads_and_cannot_read_is_an_error(disk: Tree, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    disk.remove(path)
    disk.at(path).parent.mkdir(parents=True, exist_ok=True)
    disk.at(path).symlink_to(disk.at(path).name)  # ELOOP, whoever asks
    with pytest.raises(HostError) as caught:
        guards(disk, DISK)
    assert caught.value.code == "unreadable" and caught.value.evidence[0].startswith(path)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert guards(disk, DISK) == []


@pytest.mark.parametrize(
    "source,link",
    [
        ("/dev/vda1", None),
        ("/dev/disk/by-id/virtio-x-part1", "by-id/virtio-x-part1"),
        ("UUID=0F-12ab", "by-uuid/0f-12AB"),
        ('UUID="0f-12ab"', "by-uuid/0f-12ab"),
        ("LABEL=data", "by-label/data"),
        ("LABEL=my\\040data", "by-label/my\\x20data"),
        ("LABEL=a/ü", "by-label/a\\x2fü"),
        ("PARTUUID=ab-01", "by-partuuid/ab-01"),
        ("PARTLABEL=x", "by-partlabel/x"),
    ],
)
@pytest.mark.parametrize("rest", ["/srv/a\\040b ext4 noauto 0 0", "none swap sw", "/srv auto"])
def test_what_fstab_names_is_the_hosts_mounted_or_not(disk: Tree, source: str, link: str | None, rest: str) -> None:
    disk.file("/dev/vda1")
    if link:
        disk.link("/dev/disk/" + link, "/dev/vda1")
    disk.file("/etc/fstab", "# by hand\n\n  %s\t%s\n" % (source, rest.replace(" ", "\t")))
    found = guards(disk, DISK)
    assert kinds(found) == ["mount"] and found[0].message.endswith("holds what /etc/fstab names.")
    assert found[0].evidence == ["vda1 is named in /etc/fstab: %s %s" % (source, rest)]


@pytest.mark.parametrize(
    "line",
    [
        "#/dev/vda1 /srv ext4",
        "# /dev/vda1 /srv ext4",
        "/dev/vda1",
        "/dev/vda1 /srv",
        "UUID=1 /srv ext4",
        "UUID= /srv ext4",
        "/dev/vdb1 /srv ext4",
        "host:/dev/vda1 /srv nfs",
        "tmpfs /dev/vda1 tmpfs",
        "NAME=vda1 /srv ext4",
        "=",
        "\\",
    ],
)
def test_what_fstab_does_not_name_is_free(disk: Tree, line: str) -> None:
    disk.file("/dev/vda1")
    disk.link("/dev/disk/by-uuid/2", "/dev/vda1")
    disk.file("/etc/fstab", line)
    assert guards(disk, DISK) == []


def test_fstab_counts_through_every_layer_and_is_not_repeated_for_what_is_in_use(disk: Tree) -> None:
    disk.hold("dm-0", "253:0", "vda1")
    disk.file("/dev/dm-0")
    disk.link("/dev/mapper/vg-data", "/dev/dm-0")
    disk.file("/etc/fstab", "/dev/mapper/vg-data /data xfs nofail\n/dev/vda swap swap")
    assert guards(disk, DISK)[0].evidence == [
        "vda is named in /etc/fstab: /dev/vda swap swap",
        "dm-0 on vda1 is named in /etc/fstab: /dev/mapper/vg-data /data xfs nofail",
    ]
    disk.mounts(("253:0", "/data", "/dev/mapper/vg-data"))
    disk.file("/proc/swaps", "Filename Type Size Used Priority\n/dev/vda partition 1 0 -2")
    found = guards(disk, DISK)
    assert kinds(found) == ["mount", "swap"] and found[0].evidence == ["dm-0 on vda1 (253:0) is mounted on /data"]


def test_a_disk_of_fcoe_over_a_vlan_counts(nic: Tree) -> None:
    nic.net("eth1.100")
    nic.stack("eth1.100", "eth1")
    nic.block("sdb", "/sys/devices/virtual/net/eth1.100/ctlr_0/host7/rport-7:0-0/target7:0:0/7:0:0:0/block", "8:16")
    nic.mounts(("8:16", "/san", "/dev/sdb"))
    found = guards(nic, NIC)
    assert kinds(found) == ["stacked", "mount"]
    assert found[1].evidence == ["sdb on eth1.100 on eth1 (8:16) is mounted on /san"]


def test_a_loop_device_is_on_top_of_its_disk(disk: Tree) -> None:
    disk.file(disk.block("loop0", "/sys/devices/virtual/block", "7:0") + "/loop/backing_file", "/dev/vda1")
    disk.file(disk.block("loop1", "/sys/devices/virtual/block", "7:1") + "/loop/backing_file", "/var/lib/vda1")
    found = guards(disk, DISK)
    assert kinds(found) == ["disk_in_use"] and found[0].evidence == ["vda1 is held by loop0"]
    disk.mounts(("7:0", "/mnt", "/dev/loop0"))
    assert guards(disk, DISK)[0].evidence == ["loop0 on vda1 (7:0) is mounted on /mnt"]


def opened(tree: Tree, pid: str, comm: str, path: str, flags: str) -> None:
    tree.file("/proc/%s/comm" % pid, comm)
    tree.file("/proc/%s/fdinfo/3" % pid, "pos:\t0\nflags:\t%s\nmnt_id:\t24" % flags)
    tree.dir("/proc/%s/fd" % pid)
    tree.at("/proc/%s/fd/3" % pid).symlink_to(path)


def test_a_disk_that_a_process_writes_to_is_in_use(disk: Tree) -> None:
    opened(disk, "70", "qemu-system-x86", "/dev/vda1", "0140002")
    opened(disk, "71", "asm_dbw0", "/dev/vda1", "0100001")
    found = guards(disk, DISK)
    assert kinds(found) == ["disk_in_use"] and "virtual machine" in found[0].remedy
    assert found[0].evidence == [
        "vda1 is open for writing in process 70 (qemu-system-x86)",
        "vda1 is open for writing in process 71 (asm_dbw0)",
    ]


@pytest.mark.parametrize(
    "comm,path,flags",
    [
        ("blkid", "/dev/vda1", "0100000"),
        ("(udev-worker)", "/dev/vda", "0100002"),
        ("systemd-udevd", "/dev/vda", "02"),
        ("qemu-system-x86", "/dev/vdb", "02"),
        ("rsyslogd", "/var/log/vda1", "02"),
        ("ended", "/dev/vda", ""),
    ],
)
def test_who_only_looks_at_a_disk_does_not_use_it(disk: Tree, comm: str, path: str, flags: str) -> None:
    opened(disk, "70", comm, path, flags)
    assert guards(disk, DISK) == []


def test_only_for_a_disk_are_open_files_looked_at(nic: Tree) -> None:
    context, bus = GuardContext(nic.root), PciBus(nic.root)
    assert check(context, bus, bus.get(NIC)) == [] and "writers" not in context.disks.__dict__


@pytest.mark.parametrize("driver,fstype", [("virtiofs", "virtiofs"), ("9pnet_virtio", "9p")])
def test_what_a_hypervisor_shares_counts_while_it_is_mounted(tree: Tree, driver: str, fstype: str) -> None:
    tree.pci(DISK, "1af4:105a", "018000", driver="virtio-pci")
    tree.dir(tree.real(DISK) + "/virtio3")
    tree.link(tree.real(DISK) + "/virtio3/driver", "/sys/bus/virtio/drivers/" + driver)
    assert guards(tree, DISK) == []
    tree.file("/proc/1/mountinfo", "30 1 0:30 / /srv/share rw shared:1 - %s data rw" % fstype)
    found = guards(tree, DISK)
    assert kinds(found) == ["mount"]
    assert found[0].evidence == ["virtio3: driver %s; data (%s) is mounted on /srv/share" % (driver, fstype)]
    tree.file("/proc/1/mountinfo", "30 1 0:30 / /srv/share rw shared:1 - nfs4 data rw")
    assert guards(tree, DISK) == []


# --- disks under other names ---


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[str, str]]:
    """Files that are devices; a descriptor counts as what it is open on."""
    known: dict[str, tuple[str, str]] = {}

    def node(root: Root, *parts: str) -> tuple[str, str] | None:
        path = "/".join(parts)
        return known.get(root.readlink(path) or path)

    monkeypatch.setattr(Root, "node", node)
    return known


def test_a_disk_is_found_by_its_number_whatever_its_file_is_called(
    disk: Tree, nodes: dict[str, tuple[str, str]]
) -> None:
    nodes.update({"/dev/vda": ("b", "254:0"), "/dev/in-the-pod": ("b", "254:0"), "/dev/console": ("c", "254:0")})
    opened(disk, "70", "qemu-system-x86", "/dev/in-the-pod", "0140002")
    opened(disk, "71", "agetty", "/dev/console", "02")
    opened(disk, "72", "java", "/dev/something", "02")
    assert guards(disk, DISK)[0].evidence == ["vda is open for writing in process 70 (qemu-system-x86)"]


def test_a_loop_device_may_be_on_a_node_of_another_name(disk: Tree, nodes: dict[str, tuple[str, str]]) -> None:
    volume = "/var/lib/kubelet/plugins/volumeDevices/pv/8d1f"
    nodes[volume] = ("b", "254:1")
    disk.file(disk.block("loop0", "/sys/devices/virtual/block", "7:0") + "/loop/backing_file", volume)
    assert guards(disk, DISK)[0].evidence == ["vda1 is held by loop0"]


def test_the_character_devices_of_disks_count(tree: Tree) -> None:
    tree.pci(DISK, "1000:0097", "010700", driver="mpt3sas")
    place = tree.real(DISK) + "/host0/target0:0:0/0:0:0:0"
    tree.block("sda", place + "/block", "8:0")
    tree.file(place + "/scsi_generic/sg0/dev", "21:0")
    tree.link("/sys/class/scsi_generic/sg0", place + "/scsi_generic/sg0")
    assert guards(tree, DISK) == []
    opened(tree, "70", "qemu-system-x86", "/dev/sg0", "02")
    found = guards(tree, DISK)
    assert kinds(found) == ["disk_in_use"]
    assert found[0].evidence == ["sg0 is open for writing in process 70 (qemu-system-x86)"]


# --- NVMe ---


def nvme(tree: Tree, name: str, controller: str) -> None:
    tree.file(controller + "/dev", "240:0")
    tree.link("/sys/class/nvme/" + name, controller)


@pytest.fixture
def fabric(tree: Tree) -> Tree:
    """A host bus adapter, and an NVMe disk over Fibre Channel that nothing in sysfs links to it."""
    tree.pci(DISK, "10df:f400", "0c0400", driver="lpfc")
    host = tree.real(DISK) + "/host1/fc_host/host1"
    tree.file(host + "/port_name", "0x10000090fae0b5f5")
    tree.link("/sys/class/fc_host/host1", host)
    controller = "/sys/devices/virtual/nvme-fabrics/ctl/nvme0"
    nvme(tree, "nvme0", controller)
    tree.file(controller + "/transport", "fc")
    tree.file(
        controller + "/address",
        "traddr=nn-0x200140:pn-0x10000090fae0b5f5,host_traddr=nn-0x20000090fae0b5f5:pn-0x10000090FAE0B5F5",
    )
    return tree


@pytest.mark.parametrize("multipath", [False, True])
def test_a_disk_of_nvme_over_fibre_channel_counts(fabric: Tree, multipath: bool) -> None:
    controller = "/sys/devices/virtual/nvme-fabrics/ctl/nvme0"
    subsystem = "/sys/devices/virtual/nvme-subsystem/nvme-subsys0"
    fabric.link(subsystem + "/nvme0", controller)
    fabric.link("/sys/class/nvme-subsystem/nvme-subsys0", subsystem)
    fabric.block("nvme0n1", subsystem if multipath else controller, "259:0")
    fabric.mounts(("259:0", "/", "/dev/nvme0n1"))
    assert kinds(guards(fabric, DISK)) == ["mount"]


@pytest.mark.parametrize("transport,port", [("fc", "0x10000090fae0b5f6"), ("rdma", "0x10000090fae0b5f5")])
def test_a_disk_of_another_port_does_not(fabric: Tree, transport: str, port: str) -> None:
    controller = "/sys/devices/virtual/nvme-fabrics/ctl/nvme0"
    fabric.file(controller + "/transport", transport)
    fabric.file(controller + "/address", "traddr=nn-0x1:pn-0x10000090fae0b5f5,host_traddr=nn-0x2:pn-" + port)
    fabric.block("nvme0n1", controller, "259:0")
    fabric.mounts(("259:0", "/", "/dev/nvme0n1"))
    assert guards(fabric, DISK) == []


@pytest.mark.parametrize("part,path", [("namespaces/1", "/dev/nvme0n1"), ("passthru", "/dev/nvme0")])
@pytest.mark.parametrize("enabled", [True, False])
def test_a_disk_that_the_nvme_target_exports_is_in_use(tree: Tree, part: str, path: str, enabled: bool) -> None:
    tree.pci(DISK, "144d:a808", "010802", driver="nvme")
    controller = tree.real(DISK) + "/nvme/nvme0"
    nvme(tree, "nvme0", controller)
    tree.block("nvme0n1", controller, "259:0")
    target = "/sys/kernel/config/nvmet/subsystems/nqn.2014-08.org:x/" + part
    tree.file(target + "/device_path", path)
    tree.file(target + "/enable", "%d" % enabled)
    found = guards(tree, DISK)
    assert kinds(found) == (["disk_in_use"] if enabled else [])
    assert not enabled or found[0].evidence == [
        "%s is exported to other hosts: %s/enable is 1" % (path.rpartition("/")[2], target)
    ]


def test_the_disk_of_a_virtual_function_counts_for_the_physical_one(tree: Tree) -> None:
    tree.pci(DISK, "144d:a824", "010802", driver="nvme")
    tree.sriov(DISK, number=1)
    function = tree.vf_address(DISK, 0)
    controller = tree.real(function) + "/nvme/nvme1"
    nvme(tree, "nvme1", controller)
    tree.block("nvme1n1", controller, "259:1")
    tree.mounts(("259:1", "/srv", "/dev/nvme1n1"))
    assert guards(tree, DISK)[0].evidence == ["virtual function %s, nvme1n1 (259:1) is mounted on /srv" % function]


# --- filesystems of several disks ---


def test_every_disk_of_a_filesystem_that_fstab_names_counts(disk: Tree) -> None:
    """btrfs, bcachefs: udev's link leads to one of them."""
    disk.block("sdb", "/sys/devices/virtual/block", "8:16")
    disk.file("/dev/sdb")
    disk.link("/dev/disk/by-uuid/12ab", "/dev/sdb")
    disk.file("/etc/fstab", "UUID=12ab /srv btrfs noauto")
    disk.file("/run/udev/data/b8:16", "E:ID_FS_UUID=12ab\nE:ID_FS_TYPE=btrfs")
    assert guards(disk, DISK) == []
    disk.file("/run/udev/data/b254:1", "E:ID_FS_UUID=12ab\nE:ID_FS_TYPE=btrfs")
    assert guards(disk, DISK)[0].evidence == ["vda1 is named in /etc/fstab: UUID=12ab /srv btrfs noauto"]
