# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every known way in which a host can depend on a device, as a script that makes the host do so.

The scripts run in namespaces of their own, in which $NIC is an interface of the device, $DISK one of its disks, $NODE a
character device of it, and $ACT runs acts.py. Evidence is what the refusal must say, with the same names.
"""

from __future__ import annotations

from typing import NamedTuple


class Way(NamedTuple):
    """One way. ``of``: what of the device the host depends on; ``free``: the device must not be refused for it."""

    title: str
    of: str  # nic, disk or node
    kind: str  # of the guard
    script: str
    evidence: str
    free: bool = False
    undo: str = ""  # for what does not end with the namespaces


# The other end of the NIC's wire, for connections; it answers at fe80::2 and 192.0.2.2.
_UP = "ip link set $NIC up; ip address add fe80::1/64 dev $NIC nodad; "
# What a host has that talks over something else, and not over the NIC by itself.
_VETH = "ip link add host0 type veth peer name host1; ip address add 198.51.100.1/24 dev host0; ip link set host0 up; "
_AWAY = "ip netns add away; ip link set $NIC up; ip link add link $NIC name inside netns away type macvlan; "

NETWORK = [
    Way("nothing: an idle interface that is up", "nic", "", _UP, "", free=True),
    Way("nothing: an LLDP daemon listens", "nic", "", _UP + "$ACT packet $NIC lldp", "", free=True),
    Way("nothing: a DHCP client waits", "nic", "", _UP + "$ACT packet $NIC dhcp", "", free=True),
    Way(
        "an IPv4 address",
        "nic",
        "route",
        _UP + "ip address add 192.0.2.1/24 dev $NIC",
        "192.0.2.0/24 in table main dev $NIC",
    ),
    Way(
        "an IPv6 address",
        "nic",
        "route",
        _UP + "ip address add 2001:db8::1/64 dev $NIC nodad",
        "2001:db8::/64 in table main",
    ),
    Way(
        "an IPv6 address on an interface that is down",
        "nic",
        "route",
        "ip link set $NIC down; ip address add 2001:db8::1/64 dev $NIC",
        "2001:db8::1/128 in table local dev $NIC",
    ),
    Way(
        "the default route",
        "nic",
        "route",
        _UP + "ip address add 192.0.2.1/24 dev $NIC; ip route add default via 192.0.2.2",
        "default via 192.0.2.2",
    ),
    Way(
        "a route in a table of its own",
        "nic",
        "route",
        _UP + "ip route add 203.0.113.0/24 dev $NIC table 777",
        "203.0.113.0/24 in table 777",
    ),
    Way(
        "an IPv6 route without any address",
        "nic",
        "route",
        _UP + "ip -6 route add 2001:db8:7::/64 dev $NIC",
        "2001:db8:7::/64",
    ),
    Way(
        "a route over two interfaces",
        "nic",
        "route",
        _VETH + _UP + "ip route add 203.0.113.0/24 nexthop dev $NIC nexthop dev host0",
        "203.0.113.0/24",
    ),
    Way(
        "a route by a nexthop object",
        "nic",
        "route",
        _UP + "ip nexthop add id 5 dev $NIC; ip route add 203.0.113.0/24 nhid 5",
        "203.0.113.0/24",
    ),
    Way(
        "a link-local route that somebody configured",
        "nic",
        "route",
        _UP + "ip -6 route add fe80:7::/64 dev $NIC proto static",
        "fe80:7::/64",
    ),
    Way(
        "an ssh session over IPv4",
        "nic",
        "management",
        _UP + "ip address add 192.0.2.1/24 dev $NIC; $ACT accept 192.0.2.1 192.0.2.2 $NIC",
        "established TCP connection to port 2200 from 192.0.2.2",
    ),
    Way(
        "an ssh session over a link-local address",
        "nic",
        "management",
        _UP + "$ACT accept fe80::1 fe80::2 $NIC",
        "established TCP connection to port 2200 from fe80::2",
    ),
    Way(
        "an outgoing TCP connection, link-local (iSCSI, NVMe/TCP, BGP, ansible-pull)",
        "nic",
        "connection",
        _UP + "$ACT connect tcp fe80::2 $NIC",
        "TCP connection from port",
    ),
    Way(
        "a connected UDP socket, link-local",
        "nic",
        "connection",
        _UP + "$ACT connect udp fe80::2 $NIC",
        "UDP connection from port",
    ),
    Way(
        "an outgoing connection that is being opened",
        "nic",
        "connection",
        _UP + "$ACT connect syn fe80::9 $NIC",
        "TCP connection from port",
    ),
    Way(
        "a bridge with the host's address",
        "nic",
        "route",
        "ip link add br7 type bridge; ip link set $NIC master br7 up; ip link set br7 up; "
        "ip address add 192.0.2.1/24 dev br7",
        "dev br7 on $NIC",
    ),
    Way(
        "a bridge without an address",
        "nic",
        "stacked",
        "ip link add br7 type bridge; ip link set $NIC master br7",
        "br7 on $NIC",
    ),
    Way(
        "a VLAN",
        "nic",
        "route",
        _UP
        + "ip link add link $NIC name vlan7 type vlan id 7; ip link set vlan7 up; "
        + "ip address add 192.0.2.1/24 dev vlan7",
        "dev vlan7 on $NIC",
    ),
    Way(
        "a bond",
        "nic",
        "route",
        "ip link add bond7 type bond; ip link set $NIC down; ip link set $NIC master bond7; "
        "ip link set bond7 up; ip address add 192.0.2.1/24 dev bond7",
        "dev bond7 on $NIC",
    ),
    Way(
        "a VLAN on a bridge on a bond",
        "nic",
        "route",
        "ip link add bond7 type bond; ip link set $NIC down; ip link set $NIC master bond7; "
        "ip link add br7 type bridge; ip link set bond7 master br7 up; ip link set br7 up; "
        "ip link add link br7 name vlan7 type vlan id 7; ip link set vlan7 up; "
        "ip address add 192.0.2.1/24 dev vlan7",
        "dev vlan7 on br7 on bond7 on $NIC",
    ),
    Way(
        "a team",
        "nic",
        "stacked",
        "ip link add team7 type team; ip link set $NIC down; ip link set $NIC master team7",
        "team7 on $NIC",
    ),
    Way("a VRF", "nic", "stacked", "ip link add vrf7 type vrf table 7; ip link set $NIC master vrf7", "vrf7 on $NIC"),
    Way(
        "a macvlan with the host's address",
        "nic",
        "route",
        _UP + "ip link add link $NIC name mac7 type macvlan; ip link set mac7 up; ip address add 192.0.2.1/24 dev mac7",
        "dev mac7 on $NIC",
    ),
    Way(
        "a macvtap (a virtual machine)",
        "nic",
        "stacked",
        _UP + "ip link add link $NIC name tap7 type macvtap",
        "tap7 on $NIC",
    ),
    Way(
        "a macvlan on a macvlan",
        "nic",
        "stacked",
        _UP + "ip link add link $NIC name mac7 type macvlan mode bridge; ip link add link mac7 name mac8 type macvlan",
        "mac7 on $NIC",
    ),
    Way("an ipvlan", "nic", "stacked", _UP + "ip link add link $NIC name ipv7 type ipvlan", "ipv7 on $NIC"),
    Way("a MACsec interface", "nic", "stacked", _UP + "ip link add link $NIC name sec7 type macsec", "sec7 on $NIC"),
    Way(
        "a VXLAN",
        "nic",
        "stacked",
        _UP + "ip link add vx7 type vxlan id 7 dev $NIC remote 192.0.2.2 dstport 4789",
        "vx7 on $NIC",
    ),
    Way(
        "a GRE tunnel over a link-local address",
        "nic",
        "stacked",
        _UP + "ip link add gre7 type ip6gretap local fe80::1 remote fe80::2 dev $NIC",
        "gre7 on $NIC",
    ),
    Way(
        "an IPv6-in-IPv4 tunnel that is bound to it",
        "nic",
        "stacked",
        _UP + "ip link add sit7 type sit remote 192.0.2.2 dev $NIC ttl 64",
        "sit7 on $NIC",
    ),
    Way(
        "a VTI of IPsec",
        "nic",
        "stacked",
        _UP + "ip link add vti7 type vti6 local fe80::1 remote fe80::2 dev $NIC key 7",
        "vti7 on $NIC",
    ),
    Way(
        "a macvlan in the namespace of a process",
        "nic",
        "namespace",
        _AWAY + "ip netns exec away sleep 600 & sleep 1; ip netns del away",
        "macvlan inside in the namespace of process",
    ),
    Way(
        "a macvlan in a namespace that only a mount keeps",
        "nic",
        "namespace",
        _AWAY,
        "macvlan inside in the network namespace /run/netns/away",
    ),
    Way(
        "a macvlan in a namespace that only a descriptor keeps",
        "nic",
        "namespace",
        _AWAY + "sleep 600 9</run/netns/away & sleep 1; ip netns del away",
        "macvlan inside in the namespace that process",
    ),
    Way(
        "a macvlan in a namespace that only another mount namespace keeps",
        "nic",
        "namespace",
        _AWAY + "unshare --mount --propagation private sleep 600 & sleep 1; umount /run/netns/away",
        "macvlan inside in the namespace that process",
    ),
    Way(
        "a macvlan in a namespace that only one thread is in",
        "nic",
        "namespace",
        _AWAY + "$ACT thread away; ip netns del away",
        "macvlan inside in the namespace of process",
    ),
    Way(
        "a macvlan in a namespace that only a socket keeps",
        "nic",
        "namespace",
        _AWAY + "$ACT socket away; ip netns del away",
        "macvlan inside in the namespace that process",
    ),
    Way("an XDP program", "nic", "xdp", _UP + "$ACT xdp $NIC", "$NIC: XDP program"),
    Way(
        "a userspace switch by packet sockets without a filter (VPP)",
        "nic",
        "packet_socket",
        _UP + "$ACT packet $NIC all",
        "packet socket of process",
    ),
    Way(
        "a userspace switch whose filter lets all pass (Open vSwitch)",
        "nic",
        "packet_socket",
        _UP + "$ACT packet $NIC incoming",
        "packet socket of process",
    ),
    Way(
        "a veth whose packets tc redirects to it",
        "nic",
        "traffic_control",
        _VETH
        + _UP
        + "tc qdisc add dev host1 clsact; tc filter add dev host1 ingress protocol all "
        + "u32 match u32 0 0 action mirred egress redirect dev $NIC",
        "redirects packets of another interface to it",
    ),
    Way(
        "a veth whose packets a BPF program redirects to it",
        "nic",
        "traffic_control",
        _VETH + _UP + "$ACT redirect index host1 $NIC",
        "may send packets of other interfaces out of any that is up",
    ),
    Way(
        "a veth whose packets an XDP program sends to an array of interfaces, it being one",
        "nic",
        "traffic_control",
        _VETH + _UP + "$ACT redirect array host1 $NIC",
        "sends packets of other interfaces to it by map",
    ),
    Way(
        "a veth whose packets an XDP program sends to a table of interfaces, it being one",
        "nic",
        "traffic_control",
        _VETH + "$ACT redirect hash host1 $NIC",
        "sends packets of other interfaces to it by map",
    ),
    Way(
        "nothing: a BPF program redirects packets to somewhere, but the interface is down",
        "nic",
        "",
        _VETH + "$ACT redirect index host1 host0",
        "",
        free=True,
    ),
    Way(
        "nothing: an XDP program sends packets to other interfaces",
        "nic",
        "",
        _VETH + _UP + "$ACT redirect hash host1 host0",
        "",
        free=True,
    ),
    Way(
        "a filter of tc on it (redirection to a veth, a BPF program)",
        "nic",
        "traffic_control",
        _UP + "tc qdisc add dev $NIC ingress",
        "queueing discipline ingress",
    ),
    Way(
        "tc's clsact on it (Cilium)",
        "nic",
        "traffic_control",
        _UP + "tc qdisc add dev $NIC clsact",
        "queueing discipline clsact",
    ),
    Way("a BPF program of tcx on it (Cilium)", "nic", "traffic_control", _UP + "$ACT tcx $NIC", "at tcx/ingress"),
    Way(
        "a chain of nftables on it (fwd to a veth)",
        "nic",
        "traffic_control",
        _UP + "$ACT nftables $NIC",
        "nftables chain c of table t",
    ),
    Way(
        "a veth whose packets nftables forwards to it (fwd)",
        "nic",
        "traffic_control",
        _VETH + _UP + "$ACT nftables host1 fwd $NIC",
        "nftables chain c of table t sends packets of other interfaces to it",
    ),
    Way(
        "a veth whose packets nftables copies to it (dup)",
        "nic",
        "traffic_control",
        _VETH + "$ACT nftables host1 dup $NIC",
        "nftables chain c of table t sends packets of other interfaces to it",
    ),
    Way(
        "a veth whose packets nftables forwards to an interface that each packet's mark says",
        "nic",
        "traffic_control",
        _VETH + _UP + "$ACT nftables host1 mark",
        "nftables chain c of table t may send packets of other interfaces out of any that is up",
    ),
    Way(
        "nothing: nftables forwards packets of a veth to its own end",
        "nic",
        "",
        _VETH + _UP + "$ACT nftables host1 fwd host0",
        "",
        free=True,
    ),
    Way("a PPPoE session", "nic", "pppoe", _UP + "$ACT pppoe $NIC", "session with 02:00:00:00:00:99 through $NIC"),
]
_EXT4 = "mkfs.ext4 -q /dev/$DISK; "
_LINK = (
    _EXT4
    + "UUID=$(blkid -s UUID -o value /dev/$DISK); mkdir -p /dev/disk/by-uuid; "
    + "ln -sf ../../$DISK /dev/disk/by-uuid/$UUID; "
)
STORAGE = [
    Way("nothing: an empty disk", "disk", "", "true", "", free=True),
    Way("nothing: somebody looks at the disk", "disk", "", "sleep 600 9</dev/$DISK &", "", free=True),
    Way("a mounted filesystem", "disk", "mount", _EXT4 + "mount /dev/$DISK /mnt", "is mounted on /mnt"),
    Way(
        "a bind mount of it",
        "disk",
        "mount",
        _EXT4 + "mount /dev/$DISK /mnt; mkdir /mnt/d /run/d; mount --bind /mnt/d /run/d; umount /mnt",
        "is mounted on /run/d",
    ),
    Way(
        "a mounted disk under a name that was made by hand",
        "disk",
        "mount",
        _EXT4 + "mknod /run/n b $(stat -c '0x%t 0x%T' /dev/$DISK); mount /run/n /mnt",
        "is mounted on /mnt",
    ),
    Way(
        "swap",
        "disk",
        "swap",
        "mkswap -q /dev/$DISK; swapon /dev/$DISK",
        "is in /proc/swaps",
        undo="swapoff /dev/$DISK",
    ),
    Way(
        "swap under a name that was made by hand",
        "disk",
        "swap",
        "mkswap -q /dev/$DISK; mknod -m 600 /run/n b $(stat -c '0x%t 0x%T' /dev/$DISK); swapon /run/n",
        "is in /proc/swaps",
        undo="swapoff /run/n",
    ),
    Way(
        "a line of fstab that is not mounted",
        "disk",
        "mount",
        "echo /dev/$DISK /srv ext4 noauto > /etc/fstab",
        "is named in /etc/fstab: /dev/$DISK /srv ext4 noauto",
    ),
    Way(
        "a line of fstab with a UUID",
        "disk",
        "mount",
        _LINK + "echo UUID=$UUID /srv ext4 > /etc/fstab",
        "is named in /etc/fstab: UUID=",
    ),
    Way(
        "crypttab: a volume that is locked",
        "disk",
        "mount",
        "echo data /dev/$DISK none luks > /etc/crypttab",
        "is named in /etc/crypttab",
    ),
    Way(
        "crypttab: the disk with the key",
        "disk",
        "mount",
        "echo data /dev/sdz /key:/dev/$DISK luks > /etc/crypttab",
        "is named in /etc/crypttab",
    ),
    Way("integritytab", "disk", "mount", "echo data /dev/$DISK > /etc/integritytab", "is named in /etc/integritytab"),
    Way(
        "veritytab: the disk with the hashes",
        "disk",
        "mount",
        "echo usr /dev/sdz /dev/$DISK 00ff > /etc/veritytab",
        "is named in /etc/veritytab",
    ),
    Way(
        "a mount unit",
        "disk",
        "mount",
        _LINK
        + "mkdir -p /etc/systemd/system; printf '[Mount]\\nWhat=/dev/disk/by-uuid/%s\\nWhere=/srv\\n' $UUID "
        + "> /etc/systemd/system/srv.mount",
        "is named in /etc/systemd/system/srv.mount",
    ),
    Way(
        "an automount that a generator made",
        "disk",
        "mount",
        "mkdir -p /run/systemd/generator.late; "
        "printf '[Mount]\\nWhat=/dev/%s\\nWhere=/efi\\n' $DISK > /run/systemd/generator.late/efi.mount",
        "is named in /run/systemd/generator.late/efi.mount",
    ),
    Way(
        "a swap unit",
        "disk",
        "mount",
        "mkdir -p /etc/systemd/system; printf '[Swap]\\nWhat=/dev/%s\\n' $DISK > /etc/systemd/system/x.swap",
        "is named in /etc/systemd/system/x.swap",
    ),
    Way(
        "a map of autofs",
        "disk",
        "mount",
        "echo '/misc /etc/auto.misc' > /etc/auto.master; echo \"data -fstype=ext4 :/dev/$DISK\" > /etc/auto.misc",
        "is named in /etc/auto.misc",
    ),
    Way(
        "the kernel command line (resume=)",
        "disk",
        "mount",
        "echo quiet resume=/dev/$DISK > /run/cmdline; mount --bind /run/cmdline /proc/cmdline",
        "is named in /proc/cmdline: resume=/dev/$DISK",
    ),
    Way("a loop device on it", "disk", "disk_in_use", "$ACT loop /dev/$DISK", "is held by loop"),
    Way(
        "a loop device on a node that was made by hand (kubelet)",
        "disk",
        "disk_in_use",
        "mknod /run/n b $(stat -c '0x%t 0x%T' /dev/$DISK); $ACT loop /run/n",
        "is held by loop",
    ),
    Way(
        "LVM on it",
        "disk",
        "disk_in_use",
        "vgcreate -qy vg7 /dev/$DISK; lvcreate -qy -n data -l 1 vg7",
        "is held by dm-",
        undo="vgremove -qfy vg7",
    ),
    Way(
        "a virtual machine or database that writes to it",
        "disk",
        "disk_in_use",
        "sleep 600 9<>/dev/$DISK &",
        "is open for writing in process",
    ),
    Way(
        "a writer through a node that was made by hand (a pod)",
        "disk",
        "disk_in_use",
        "mknod /run/n b $(stat -c '0x%t 0x%T' /dev/$DISK); sleep 600 9<>/run/n &",
        "is open for writing in process",
    ),
    Way(
        "a holder that leaves no trace in sysfs (ZFS)",
        "disk",
        "disk_in_use",
        "$ACT exclusive /dev/$DISK",
        "opening it exclusively gives EBUSY",
    ),
    Way(
        "an export by the kernel's NVMe target",
        "disk",
        "disk_in_use",
        "modprobe nvmet; "
        "mountpoint -q /sys/kernel/config || mount -t configfs configfs /sys/kernel/config; "
        "mkdir -p /sys/kernel/config/nvmet/subsystems/nqn.t/namespaces/1; "
        "cd /sys/kernel/config/nvmet/subsystems/nqn.t/namespaces/1; echo -n /dev/$DISK > device_path; "
        "echo 1 > enable",
        "is exported to other hosts",
        undo="cd /sys/kernel/config/nvmet/subsystems; echo 0 > nqn.t/namespaces/1/enable; "
        "rmdir nqn.t/namespaces/1 nqn.t",
    ),
    Way("data: a filesystem that nobody mounts", "disk", "disk_data", _EXT4, "holds ext4 (filesystem)"),
    Way(
        "data: a locked LUKS volume that no file names",
        "disk",
        "disk_data",
        "$ACT write /dev/$DISK luks",
        "holds crypto_LUKS (crypto)",
    ),
    Way("data: a partition table", "disk", "disk_data", "$ACT write /dev/$DISK table", "holds a partition table (dos)"),
    Way("data: swap that is off", "disk", "disk_data", "mkswap -q /dev/$DISK", "holds swap (other)"),
    Way("data: a part of an LVM volume group", "disk", "disk_member", "pvcreate -qy /dev/$DISK", "is a member of LVM"),
    Way("data: a member of a RAID", "disk", "disk_member", "$ACT write /dev/$DISK raid", "is a member of RAID"),
    Way(
        "fail closed: the table of mounts cannot be read",
        "disk",
        "unreadable",
        "$ACT forbid /proc/1/mountinfo",
        "/proc/1/mountinfo",
    ),
]
NODES = [
    Way("the kernel's console", "node", "console", "true", "the kernel's console is"),
    Way(
        "a character device that a process has open (modem, tape, watchdog, clock)",
        "node",
        "device_in_use",
        "sleep 600 9<$NODE &",
        "is open in process",
    ),
    Way(
        "a character device that is open under a name that was made by hand",
        "node",
        "device_in_use",
        "mknod /run/n c $(stat -c '0x%t 0x%T' $NODE); sleep 600 9</run/n &",
        "is open in process",
    ),
]
WAYS = NETWORK + STORAGE + NODES
