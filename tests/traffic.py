# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Counts packets that the distribution's own dpdk-testpmd carries between two hosts.

No IOVA-mode option is given on x86: that DPDK chooses right by itself is part of
what is shown. Elsewhere it has no hint to follow.
"""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
import time

STARTED = "Press enter to exit"
# Line-buffered, so that its start is seen at once; bounded, so that nothing waits forever.
TESTPMD = (
    "timeout --foreground 600 stdbuf -oL dpdk-testpmd -l 0-1 --log-level=lib.eal:info {eal} {devices}"
    " -- --total-num-mbufs=4096 --forward-mode={mode}"
)
# The ways to start an application of DPDK, by what it is told of devices. DPDK itself sorts them by address.
STARTS = ("no option", "-a ours", "-a a foreign device first", "-a a foreign device last")
# The host bridge: the first of all devices, and nothing that an application could drive.
FOREIGN = "0000:00:00.0"


def devices_of(start: str, ours: list[str]) -> list[str]:
    """Return the devices that testpmd is to be given with -a."""
    return {
        "no option": [],
        "-a ours": ours,
        "-a a foreign device first": [FOREIGN, *ours],
        "-a a foreign device last": [*ours, FOREIGN],
    }[start]


class Testpmd:
    """One dpdk-testpmd on one host, forwarding from construction until :meth:`finish`."""

    __test__ = False  # the name is DPDK's, not pytest's

    def __init__(self, ssh_config: str, host: str, devices: list[str], mode: str, user: str = "root", eal: str = ""):
        command = TESTPMD.format(eal=eal, devices=" ".join(f"-a {device}" for device in devices), mode=mode)
        terminal = []
        if user != "root":
            command = f"su {user} -s /bin/sh -c {shlex.quote(command)}"
            # stdbuf preloads a library, which a program with file capabilities does not: it needs a terminal.
            terminal = ["-tt"]
        self.host = host
        self.output = ""
        self._process = subprocess.Popen(
            ["ssh", *terminal, "-F", ssh_config, host, command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        while STARTED not in self.output:
            line = self._process.stdout.readline()
            self.output += line
            if not line:
                raise RuntimeError(f"dpdk-testpmd did not start on {host}; it said:\n{self.output}")

    def finish(self) -> dict[str, int]:
        """Stop forwarding; return the accumulated ``{"rx": packets, "tx": packets}`` of all ports."""
        try:
            rest, _none = self._process.communicate("\n", timeout=300)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        self.output += rest
        # testpmd repeats the sum over all ports after the ports: the last pair is the total.
        totals = re.findall(r"RX-packets: (\d+).*?TX-packets: (\d+)", self.output, re.DOTALL)
        if self._process.returncode or not totals:
            raise RuntimeError(f"dpdk-testpmd failed on {self.host}; it said:\n{self.output}")
        received, sent = totals[-1]
        return {"rx": int(received), "tx": int(sent)}


def carry(
    ssh_config: str,
    sender: str,
    receiver: str,
    devices: list[str],
    seconds: float,
    eal: str = "",
    outputs: list[str] | None = None,
) -> tuple[int, int]:
    """Transmit for some seconds; return how many packets were sent and how many arrived.

    What both ends printed is appended to ``outputs``.
    """
    listening = Testpmd(ssh_config, receiver, devices, "rxonly", eal=eal)
    try:
        talking = Testpmd(ssh_config, sender, devices, "txonly", eal=eal)
        time.sleep(seconds)
        sent = talking.finish()["tx"]
    finally:
        arrived = listening.finish()["rx"]
    if outputs is not None:
        outputs += [talking.output, listening.output]
    return sent, arrived


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ssh-config", required=True)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument(
        "--device", action="append", required=True, help="the BDF of a bound NIC, the same on both hosts"
    )
    parser.add_argument("sender")
    parser.add_argument("receiver")
    args = parser.parse_args()
    for device in args.device:
        sent, arrived = carry(args.ssh_config, args.sender, args.receiver, [device], args.seconds)
        print(f"{args.sender} {device} sent {sent} packets; {args.receiver} {device} received {arrived}", flush=True)
        if not arrived:
            print(f"No packet arrived through {device}.", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
