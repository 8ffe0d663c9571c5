# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever the host lives on is found on a real kernel, through every layer, in one refusal that names all of it."""
from __future__ import annotations

import shlex

import pytest
from live import changes_since_baseline, nics, on, refused

HOST = "golf"
# Each takes the interface of one NIC and undoes itself; the evidence is what the refusal must say of it.
NETWORK = [
    ("ip link set {nic} up && ip link add link {nic} name vlan7 type vlan id 7 && ip link set vlan7 up"
     " && ip address add 192.0.2.5/24 dev vlan7",
     "ip link del vlan7; ip link set {nic} down", "192.0.2.0/24 in table main dev vlan7 on {nic}"),
    ("ip link add bond7 type bond && ip link set {nic} master bond7 && ip link set bond7 up"
     " && ip address add 2001:db8:7::5/64 dev bond7 nodad",
     "ip link set {nic} nomaster; ip link del bond7; ip link set {nic} down",
     "2001:db8:7::/64 in table main dev bond7 on {nic}"),
    ("ip link add br7 type bridge && ip link set {nic} master br7 && ip link set br7 up && ip link set {nic} up"
     " && ip address add 198.51.100.5/24 dev br7",
     "ip link set {nic} nomaster; ip link del br7; ip link set {nic} down",
     "198.51.100.0/24 in table main dev br7 on {nic}"),
    ("ip link set {nic} up && ip route add 203.0.113.0/24 dev {nic} table 777 && ip rule add to 203.0.113.0/24 table 777",
     "ip rule del table 777; ip link set {nic} down", "203.0.113.0/24 in table 777 dev {nic}"),
    ("ip netns add elsewhere && systemd-run -q --unit=elsewhere ip netns exec elsewhere sleep 3600 && sleep 3"
     " && ip link set {nic} up && ip link add link {nic} name inside netns elsewhere type macvlan",
     "systemctl stop elsewhere; ip netns del elsewhere; ip link set {nic} down",
     "macvlan inside in the namespace of process"),
    ("ip address add 192.0.2.99/32 dev {nic}", "ip address flush dev {nic}", "192.0.2.99/32 in table local dev {nic}"),
]
STORAGE = [
    ("mkfs.ext4 -q /dev/{disk} && mkdir /mnt/guard && mount /dev/{disk} /mnt/guard",
     "umount /mnt/guard; rmdir /mnt/guard", "{disk} (259:"),
    ("mkswap -q /dev/{disk} && swapon /dev/{disk}", "swapoff /dev/{disk}", "{disk} is in /proc/swaps"),
    ("vgcreate -qy vg7 /dev/{disk} && lvcreate -qy -n data -l 1 vg7", "vgremove -qfy vg7",
     "{disk} is held by dm-0 (vg7-data)"),
    ("pvcreate -qy /dev/{disk}", "true", "{disk} is a member of LVM"),
]
DISKS = [f"0000:00:{slot}.0" for slot in ("18", "19", "1a", "1b")]


def interface(address: str) -> str:
    return on(HOST, f"ls -d /sys/bus/pci/devices/{address}/net/* /sys/bus/pci/devices/{address}/*/net/* 2>/dev/null"
                    " | xargs -n1 basename").strip()


def disk(address: str) -> str:
    return on(HOST, f"basename /sys/bus/pci/devices/{address}/nvme/*/nvme*n1").strip()


def modules() -> set[str]:
    return set(on(HOST, "cut -d' ' -f1 /proc/modules").split())


@pytest.fixture
def lived_on():
    """Give the host a use for every one of them; return what must be said of it."""
    cases = [(case, {"nic": interface(address)}) for case, address in zip(NETWORK, nics(HOST))]
    cases += [(case, {"disk": disk(address)}) for case, address in zip(STORAGE, DISKS)]
    before = modules()
    try:
        for (setup, _undo, _evidence), name in cases:
            on(HOST, setup.format(**name))
        on(HOST, "udevadm settle")
        yield [evidence.format(**name) for (_setup, _undo, evidence), name in cases]
    finally:
        for (_setup, undo, _evidence), name in cases:
            on(HOST, undo.format(**name) + "; true")
        on(HOST, " ".join(["wipefs -qa", *(f"/dev/{disk(address)}" for address in DISKS)])
           + "; rm -rf /etc/lvm/archive /etc/lvm/backup")
        while more := modules() - before:
            on(HOST, f"rmmod {shlex.join(more)} 2>/dev/null; true")
            assert len(modules() - before) < len(more), more


def test_one_refusal_names_all_of_it(lived_on):
    said = refused(HOST, "guarded_device", *lived_on, noiommu_devices=[{"address": ",".join([*nics(HOST), *DISKS])}])
    assert all(address in said for address in [*nics(HOST), *DISKS])
    for address in [*nics(HOST), *DISKS]:
        assert "vfio" not in on(HOST, f"readlink /sys/bus/pci/devices/{address}/driver")


def test_the_host_is_as_it_was():
    assert changes_since_baseline(HOST) == []
