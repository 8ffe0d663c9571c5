# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sends frames through one interface until one arrives at another, or for a time; prints as JSON whether one did.

Runs on the host: python3 - SENDER SOURCE RECEIVER DESTINATION SECONDS < tests/frames.py. The receiver is not
promiscuous: what arrives was for it.
"""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import sys
import time

ETHERTYPE = 0x88B5  # for experiments; nobody else sends it
AT_ONCE, WAIT = 3, 0.5


def main(sender: str, source: str, receiver: str, destination: str, seconds: str) -> None:
    mark = os.urandom(16)
    payload = mark.ljust(60, b"\0")
    frame = b"".join((octets(destination), octets(source), struct.pack(">H", ETHERTYPE), payload))
    sending = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sending.bind((sender, 0))
    receiving = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHERTYPE))
    receiving.bind((receiver, ETHERTYPE))
    deadline = time.monotonic() + float(seconds)
    has_arrived = False
    while not has_arrived and time.monotonic() < deadline:
        for _number in range(AT_ONCE):
            sending.send(frame)
        while not has_arrived and select.select([receiving], [], [], WAIT)[0]:
            has_arrived = mark in receiving.recv(2048)
    json.dump({"arrived": has_arrived}, sys.stdout)


def octets(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


main(*sys.argv[1:])
