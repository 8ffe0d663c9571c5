# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever the host lives on is found on a real kernel, through every layer, in one refusal that names all of it."""

from __future__ import annotations

import base64
import io
import shlex
import tarfile
from pathlib import Path

import pytest
from live import REPOSITORY, changes_since_baseline, nics, on, refused

HOST = "golf"
ATTACH_XDP = base64.b64encode(Path(__file__).with_name("attach_xdp.py").read_bytes()).decode()
# Each takes the interface of one NIC and undoes itself; the evidence is what the refusal must say of it.
NETWORK = [
    (
        "ip link set {nic} up && ip link add link {nic} name vlan7 type vlan id 7 && ip link set vlan7 up"
        " && ip address add 192.0.2.5/24 dev vlan7",
        "ip link del vlan7; ip link set {nic} down",
        "192.0.2.0/24 in table main dev vlan7 on {nic}",
    ),
    (
        "ip link add bond7 type bond && ip link set {nic} master bond7 && ip link set bond7 up"
        " && ip address add 2001:db8:7::5/64 dev bond7 nodad",
        "ip link set {nic} nomaster; ip link del bond7; ip link set {nic} down",
        "2001:db8:7::/64 in table main dev bond7 on {nic}",
    ),
    (
        "ip link add br7 type bridge && ip link set {nic} master br7 && ip link set br7 up && ip link set {nic} up"
        " && ip address add 198.51.100.5/24 dev br7",
        "ip link set {nic} nomaster; ip link del br7; ip link set {nic} down",
        "198.51.100.0/24 in table main dev br7 on {nic}",
    ),
    (
        "ip link set {nic} up && ip route add 203.0.113.0/24 dev {nic} table 777"
        " && ip rule add to 203.0.113.0/24 table 777",
        "ip rule del table 777; ip link set {nic} down",
        "203.0.113.0/24 in table 777 dev {nic}",
    ),
    (
        "ip netns add elsewhere && systemd-run -q --unit=elsewhere ip netns exec elsewhere sleep 3600 && sleep 3"
        " && ip link set {nic} up && ip link add link {nic} name inside netns elsewhere type macvlan",
        "systemctl stop elsewhere; ip netns del elsewhere; ip link set {nic} down",
        "macvlan inside in the namespace of process",
    ),
    ("ip address add 192.0.2.99/32 dev {nic}", "ip address flush dev {nic}", "192.0.2.99/32 in table local dev {nic}"),
]
STORAGE = [
    (
        "mkfs.ext4 -q /dev/{disk} && mkdir /mnt/guard && mount /dev/{disk} /mnt/guard",
        "umount /mnt/guard; rmdir /mnt/guard",
        "{disk} (259:",
    ),
    ("mkswap -q /dev/{disk} && swapon /dev/{disk}", "swapoff /dev/{disk}", "{disk} is in /proc/swaps"),
    (
        "vgcreate -qy vg7 /dev/{disk} && lvcreate -qy -n data -l 1 vg7",
        "vgremove -qfy vg7",
        "{disk} is held by dm-0 (vg7-data)",
    ),
    ("pvcreate -qy /dev/{disk}", "true", "{disk} is a member of LVM"),
]
# Nothing in sysfs leads from these devices to what uses them.
HIDDEN_NETWORK = [
    (
        "ip netns add away && ip link set {nic} netns away",
        "ip -n away link set {nic} netns 1; ip netns del away",
        "{nic} is in the network namespace /run/netns/away",
    ),
    (
        f"echo {ATTACH_XDP} | base64 -d > /root/attach_xdp.py"
        " && systemd-run -q --unit=xdp python3 /root/attach_xdp.py {nic}"
        " && timeout 60 sh -c 'until ip link show {nic} | grep -q prog/xdp; do sleep 1; done'",
        "systemctl stop xdp; rm /root/attach_xdp.py",
        "{nic}: XDP program",
    ),
]
HIDDEN_STORAGE = [
    (
        "mknod /root/volume0 b $(stat -c '0x%t 0x%T' /dev/{disk})"
        " && systemd-run -q --unit=pod sh -c 'exec sleep 3600 9<>/root/volume0'",
        "systemctl stop pod; rm /root/volume0",
        "{disk} is open for writing in process",
    ),
    (
        "modprobe nvmet && cd /sys/kernel/config/nvmet/subsystems && mkdir -p nqn.test/namespaces/1"
        " && cd nqn.test/namespaces/1 && echo -n /dev/{disk} > device_path && echo 1 > enable",
        "cd /sys/kernel/config/nvmet/subsystems; echo 0 > nqn.test/namespaces/1/enable"
        "; rmdir nqn.test/namespaces/1 nqn.test",
        "{disk} is exported to other hosts: /sys/kernel/config/nvmet/subsystems/nqn.test/namespaces/1/enable is 1",
    ),
    (
        "mknod /root/volume2 b $(stat -c '0x%t 0x%T' /dev/{disk}) && losetup /dev/loop7 /root/volume2",
        "losetup -d /dev/loop7; rm /root/volume2",
        "{disk} is held by loop7",
    ),
    (
        "systemd-run -q --unit=raw sh -c 'exec sleep 3600 9<>/dev/{raw}'",
        "systemctl stop raw",
        "{raw} is open for writing in process",
    ),
]
FULL_KERNEL = "VLAN|bond|team|VRF|ipvlan|MACsec|GRE|IPv6-in-IPv4|VTI|PPPoE|redirects"
DISKS = [f"0000:00:{slot}.0" for slot in ("18", "19", "1a", "1b")]


def interface(address: str) -> str:
    return on(
        HOST,
        f"ls -d /sys/bus/pci/devices/{address}/net/* /sys/bus/pci/devices/{address}/*/net/* 2>/dev/null"
        " | xargs -n1 basename",
    ).strip()


def disk(address: str) -> str:
    return on(HOST, f"basename /sys/bus/pci/devices/{address}/nvme/*/nvme*n1").strip()


def modules() -> set[str]:
    return set(on(HOST, "cut -d' ' -f1 /proc/modules").split())


def raw(address: str) -> str:
    return on(HOST, f"basename $(ls -d /sys/class/nvme-generic/* | xargs readlink -f | grep {address})").strip()


@pytest.fixture
def modules_as_before():
    """Unload what the kernel loaded for a test."""
    before = modules()
    yield
    while more := modules() - before:
        on(HOST, f"rmmod {shlex.join(more)} 2>/dev/null; true")
        assert len(modules() - before) < len(more), more


@pytest.fixture(params=[(NETWORK, STORAGE), (HIDDEN_NETWORK, HIDDEN_STORAGE)], ids=["layers", "hidden"])
def lived_on(request, modules_as_before):
    """Give the host a use for each of these devices; return them, and what must be said of each."""
    network, storage = request.param
    cards, disks = nics(HOST)[: len(network)], DISKS[: len(storage)]
    cases = [(case, {"nic": interface(address)}) for case, address in zip(network, cards)]
    cases += [(case, {"disk": disk(address), "raw": raw(address)}) for case, address in zip(storage, disks)]
    try:
        for (setup, _undo, _evidence), name in cases:
            on(HOST, setup.format(**name))
        on(HOST, "udevadm settle")
        yield [*cards, *disks], [evidence.format(**name) for (_setup, _undo, evidence), name in cases]
    finally:
        for (_setup, undo, _evidence), name in cases:
            on(HOST, undo.format(**name) + "; true")
        on(
            HOST,
            " ".join(["wipefs -qa", *(f"/dev/{disk(address)}" for address in DISKS)])
            + "; rm -rf /etc/lvm/archive /etc/lvm/backup",
        )


def test_one_refusal_names_all_of_it(lived_on):
    devices, evidence = lived_on
    said = refused(HOST, "guarded_device", *evidence, noiommu_devices=[{"address": ",".join(devices)}])
    assert all(address in said for address in devices)
    for address in devices:
        assert "vfio" not in on(HOST, f"readlink /sys/bus/pci/devices/{address}/driver")


def test_interfaces_that_only_a_full_kernel_has_are_refused(modules_as_before):
    """The table of `make lockout`, with what the machine that runs it may lack."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for folder in ("plugins/module_utils", "tests/lockout"):
            tar.add(
                REPOSITORY / folder,
                f"lockout/{folder}",
                filter=lambda entry: None if "__pycache__" in entry.name else entry,
            )
    on(HOST, "base64 -d | tar -xzC /root", stdin=base64.b64encode(archive.getvalue()).decode())
    try:
        said = on(HOST, f"python3 /root/lockout/tests/lockout/run --only '{FULL_KERNEL}'", timeout=3600)
    finally:
        on(HOST, "rm -r /root/lockout")
    refused_ways = [line for line in said.splitlines() if line.startswith("refused ")]
    assert all(any(kind in line for line in refused_ways) for kind in ("a VLAN", "a bond", "a GRE tunnel")), said


def test_the_host_is_as_it_was():
    assert changes_since_baseline(HOST) == []
