# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a shell cannot do: sockets, programs and descriptors that are held until the namespaces end.

Each act is done by a child that stays; the parent returns when it is done, or fails as it does.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import socket
import struct
import sys
import threading
from pathlib import Path
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)
HELD: list[Any] = []  # what must not be closed
ETH_P_ALL, SO_ATTACH_FILTER, CLONE_NEWNET = 3, 26, 0x40000000
PORT = 2200
# Classic BPF: (code, jump if true, jump if false, constant).
FILTERS = {
    "all": [],
    "lldp": [(0x28, 0, 0, 12), (0x15, 0, 1, 0x88CC), (0x06, 0, 0, 65535), (0x06, 0, 0, 0)],
    # UDP over IPv4 to port 68.
    "dhcp": [
        (0x28, 0, 0, 12),
        (0x15, 0, 6, 0x0800),
        (0x30, 0, 0, 23),
        (0x15, 0, 4, 17),
        (0xB1, 0, 0, 14),
        (0x48, 0, 0, 16),
        (0x15, 0, 1, 68),
        (0x06, 0, 0, 65535),
        (0x06, 0, 0, 0),
    ],
    # All but what this host sends.
    "incoming": [(0x28, 0, 0, 0xFFFFF004), (0x15, 0, 1, 4), (0x06, 0, 0, 0), (0x06, 0, 0, 65535)],
}


def checked(answer: int) -> int:
    """Raise the errno of a call that failed."""
    if answer < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return answer


def in_namespace(name: str) -> None:
    """Take this thread into a network namespace of `ip netns`."""
    handle = os.open("/run/netns/" + name, os.O_RDONLY)
    checked(LIBC.setns(handle, CLONE_NEWNET))
    os.close(handle)


def endpoint(address: str, port: int, nic: str) -> tuple[int, tuple[Any, ...]]:
    """Return an address's family and how the socket module writes it."""
    if ":" not in address:
        return socket.AF_INET, (address, port)
    return socket.AF_INET6, (address, port, 0, socket.if_nametoindex(nic))


def listen_far(family: int) -> None:
    """Have the other end of the wire listen."""

    def listen() -> None:
        in_namespace("far")
        there = socket.create_server(("", PORT), family=family)
        HELD.append(there)

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert HELD, "nothing listens at the other end"


def accept(here: str, there: str, nic: str) -> None:
    """Be connected to from the other end."""
    family, address = endpoint(here, PORT, nic)
    server = socket.socket(family)
    server.bind(address)
    server.listen()

    def connect() -> None:
        in_namespace("far")
        client = socket.socket(family)
        client.bind(endpoint(there, 0, "far0")[1])
        client.connect(endpoint(here, PORT, "far0")[1])
        HELD.append(client)

    thread = threading.Thread(target=connect)
    thread.start()
    server.settimeout(20)
    connection, _peer = server.accept()
    thread.join()
    HELD.extend((server, connection))


def connect(how: str, there: str, nic: str) -> None:
    """Connect to the other end."""
    family, address = endpoint(there, PORT, nic)
    client = socket.socket(family, socket.SOCK_DGRAM if how == "udp" else socket.SOCK_STREAM)
    HELD.append(client)
    if how == "tcp":
        listen_far(family)
    if how == "syn":
        client.setblocking(False)
        client.connect_ex(address)
    else:
        client.settimeout(20)
        client.connect(address)


def packet(nic: str, code: str) -> None:
    """Open a packet socket with one of the filters."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    instructions = b"".join(struct.pack("=HBBI", *instruction) for instruction in FILTERS[code])
    if instructions:
        buffer = ctypes.create_string_buffer(instructions)
        program = struct.pack("HL", len(instructions) // 8, ctypes.addressof(buffer))
        sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
    sock.bind((nic, ETH_P_ALL))
    HELD.append(sock)


def thread(name: str) -> None:
    """Take one thread of this process into a namespace, for as long as it lives."""
    there = threading.Event()

    def stay() -> None:
        in_namespace(name)
        there.set()
        threading.Event().wait()

    threading.Thread(target=stay, daemon=True).start()
    assert there.wait(20), "the thread is not there"


def socket_of(name: str) -> None:
    """Keep a socket that was made in a namespace, and nothing else of it."""

    def make() -> None:
        in_namespace(name)
        HELD.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))

    maker = threading.Thread(target=make)
    maker.start()
    maker.join()
    assert HELD, "there is no socket"


def bpf(command: int, attributes: bytes) -> int:
    """Call bpf(2)."""
    number = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
    return checked(LIBC.syscall(number, command, attributes, len(attributes)))


def instruction(code: int, to: int = 0, source: int = 0, value: int = 0) -> bytes:
    """Return one instruction of eBPF."""
    return struct.pack("=BBhi", code, source << 4 | to, 0, value)


# Instructions: a register's value; the address of a map, in two of them; a call of a helper; the end.
MOVE, MAP, CALL, EXIT = 0xB7, 0x18, 0x85, instruction(0x95)
XDP, SCHED_CLS = (6, 37, 2), (3, 46, 0)  # type, hook and flags: for any driver, and tcx/ingress


def bpf_program(nic: str, how: tuple[int, int, int], code: bytes) -> None:
    """Attach a program to an interface."""
    load, link_create = 5, 28
    kind, attach, flags = how
    text, licence = ctypes.create_string_buffer(code), ctypes.create_string_buffer(b"GPL")
    addresses = ctypes.addressof(text), ctypes.addressof(licence)
    program = bpf(load, struct.pack("=IIQQ24x", kind, len(code) // 8, *addresses))
    HELD.append(bpf(link_create, struct.pack("=IIII", program, socket.if_nametoindex(nic), attach, flags)))


def xdp(nic: str) -> None:
    """Attach an XDP program that lets everything pass."""
    bpf_program(nic, XDP, instruction(MOVE, 0, 0, 2) + EXIT)


def tcx(nic: str) -> None:
    """Attach a program of tc's, without a queueing discipline, that is of no concern for what happens to packets."""
    bpf_program(nic, SCHED_CLS, instruction(MOVE, 0, 0, -1) + EXIT)


def redirect(how: str, source: str, nic: str) -> None:
    """Attach to one interface what sends its packets out of another: by its index, or by a map of interfaces."""
    index = socket.if_nametoindex(nic)
    if how == "index":
        code = instruction(MOVE, 1, 0, index) + instruction(MOVE, 2) + instruction(CALL, 0, 0, 23) + EXIT
        bpf_program(source, SCHED_CLS, code)
        return
    kind = {"array": 14, "hash": 25}[how]
    devices = bpf(0, struct.pack("=IIIII52x", kind, 4, 4, 8, 0))
    key, value = (ctypes.create_string_buffer(struct.pack("=I", number)) for number in (5, index))
    bpf(2, struct.pack("=IxxxxQQQ", devices, ctypes.addressof(key), ctypes.addressof(value), 0))
    code = instruction(MAP, 1, 1, devices) + bytes(8) + instruction(MOVE, 2, 0, 5) + instruction(MOVE, 3)
    bpf_program(source, XDP, code + instruction(CALL, 0, 0, 51) + EXIT)


def nftables(nic: str, how: str = "", target: str = "") -> None:
    """Hook a chain to an interface, as `nft add chain netdev t c { type filter hook ingress device ... }`.

    With a rule that forwards or copies what comes to another interface, named by its index or by each packet's mark.
    """
    begin, end, subsystem, netdev, nested = 16, 17, 10, 5, 0x8000

    def attribute(kind: int, data: bytes) -> bytes:
        return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)

    def message(kind: int, flags: int, family: int, resource: int, body: bytes = b"") -> bytes:
        data = struct.pack("=BB", family, 0) + struct.pack(">H", resource) + body
        return struct.pack("=IHHII", 16 + len(data), kind, flags, 1, 0) + data

    def expression(name: bytes, *attributes: bytes) -> bytes:
        return attribute(1 | nested, attribute(1, name + b"\0") + attribute(2 | nested, b"".join(attributes)))

    register = struct.pack(">I", 1)
    hook = attribute(1, struct.pack(">I", 0)) + attribute(2, struct.pack(">i", 0)) + attribute(3, nic.encode() + b"\0")
    chain = attribute(1, b"t\0") + attribute(3, b"c\0") + attribute(4 | nested, hook) + attribute(7, b"filter\0")
    requests = [(0, 0x401, attribute(1, b"t\0")), (3, 0x401, chain)]
    if how:
        sent = {"fwd": attribute(1, register), "mark": attribute(1, register), "dup": attribute(2, register)}[how]
        if how == "mark":
            load = expression(b"meta", attribute(1, register), attribute(2, struct.pack(">I", 3)))
        else:
            value = attribute(1, struct.pack("=I", socket.if_nametoindex(target)))
            load = expression(b"immediate", attribute(1, register), attribute(2 | nested, value))
        rule = attribute(4 | nested, load + expression({"mark": b"fwd"}.get(how, how.encode()), sent))
        requests.append((6, 0xC01, attribute(1, b"t\0") + attribute(2, b"c\0") + rule))
    batch = message(begin, 1, 0, subsystem)
    for number, (kind, flags, body) in enumerate(requests, 1):
        answers = 4 if number == len(requests) else 0  # errors are answered either way
        batch += message(subsystem << 8 | kind, flags | answers, netdev, 0, body)
    batch += message(end, 1, 0, subsystem)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as sock:
        sock.bind((0, 0))
        sock.settimeout(20)
        sock.send(batch)
        answer = sock.recv(4096)
    code = struct.unpack_from("=i", answer, 16)[0]
    if code:
        raise OSError(-code, os.strerror(-code))


def pppoe(nic: str) -> None:
    """Open a PPPoE session with somebody who does not have to be there."""
    family, over_ethernet = 24, 0
    handle = checked(LIBC.socket(family, socket.SOCK_STREAM, over_ethernet))
    peer = bytes.fromhex("020000000099")
    # struct sockaddr_pppox: the session's number is in network byte order.
    address = struct.pack("=HI", family, over_ethernet) + struct.pack(">H", 7) + peer + nic.encode().ljust(16, b"\0")
    checked(LIBC.connect(handle, address.ljust(30, b"\0"), 30))
    HELD.append(handle)


def loop_device(path: str) -> str:
    """Put a loop device on a file that is gone when this process is; return its node."""
    with open("/dev/loop-control", "rb") as control:
        number = fcntl.ioctl(control, 0x4C82)  # LOOP_CTL_GET_FREE
    node = "/dev/loop%d" % number
    if not os.path.exists(node):
        os.mknod(node, 0o600 | 0o060000, os.makedev(7, number))
    device, backing = os.open(node, os.O_RDWR), os.open(path, os.O_RDWR)
    fcntl.ioctl(device, 0x4C00, backing)  # LOOP_SET_FD
    # Without this it would stay when the namespaces end: LO_FLAGS_AUTOCLEAR in struct loop_info64.
    fcntl.ioctl(device, 0x4C04, struct.pack("=QQQQQIIII64s64s32sQQ", 0, 0, 0, 0, 0, 0, 0, 0, 4, b"", b"", b"", 0, 0))
    HELD.append(os.open(node, os.O_RDONLY))
    os.close(backing)
    os.close(device)
    return node


def loop(path: str) -> None:
    """Put a loop device on a disk."""
    loop_device(path)


def exclusive(path: str) -> None:
    """Hold a disk exclusively, for reading only."""
    HELD.append(os.open(path, os.O_RDONLY | os.O_EXCL))


def write(path: str, what: str) -> None:
    """Write the beginning of what a tool that may not be here would make."""
    with open(path, "r+b") as disk:
        if what == "luks":
            disk.write(
                (b"LUKS\xba\xbe\x00\x01" + b"aes".ljust(32, b"\0") + b"xts-plain64".ljust(32, b"\0")).ljust(592, b"\0")
            )
        elif what == "table":
            entry = struct.pack("=B3sB3sII", 0, b"", 0x83, b"", 2048, 4096)
            disk.write((bytes(446) + entry).ljust(510, b"\0") + b"\x55\xaa")
        else:  # a superblock of md, version 1.2
            block = struct.pack(
                "=IIII16s32sQIIQ", 0xA92B4EFC, 1, 0, 0, b"set".ljust(16, b"!"), b"host:7", 0, 1, 0, 8192
            )
            block = block.ljust(128, b"\0") + struct.pack(
                "=QQQQII16s", 2048, 8192, 8, 0, 0, 0, b"device".ljust(16, b"!")
            )
            block = bytearray(block.ljust(256, b"\0"))
            words = struct.unpack("=64I", block)
            total = sum(words)
            struct.pack_into("=I", block, 216, ((total & 0xFFFFFFFF) + (total >> 32)) & 0xFFFFFFFF)
            disk.seek(4096)
            disk.write(block)


def forbid(path: str) -> None:
    """Make a file of /proc unreadable for root, as a security policy does: it is a loop of links."""
    # A link cannot be mounted on a file: a file that gives EIO is.
    checked(LIBC.mount(b"/proc/self/mem", path.encode(), None, 0x1000, None))


def main() -> int:
    """Act in a child that stays; say whether it could."""
    act = {
        "accept": accept,
        "connect": connect,
        "packet": packet,
        "thread": thread,
        "socket": socket_of,
        "xdp": xdp,
        "tcx": tcx,
        "redirect": redirect,
        "nftables": nftables,
        "pppoe": pppoe,
    }
    act.update({"loop": loop, "exclusive": exclusive, "write": write, "forbid": forbid})
    result, ready = os.pipe()
    if os.fork():
        os.close(ready)
        said = os.read(result, 4096).decode()
        sys.stderr.write(said if said != "done" else "")
        return 0 if said == "done" else 1
    os.close(result)
    try:
        act[sys.argv[1]](*sys.argv[2:])
    except OSError as exc:
        os.write(ready, (str(exc) + "\n").encode())
        os._exit(1)
    os.write(ready, b"done")
    os.close(ready)
    with Path("/dev/null").open("r+b") as null:  # or the shell would wait for the end of this one's output
        os.dup2(null.fileno(), 1)
        os.dup2(null.fileno(), 2)
    signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(main())
