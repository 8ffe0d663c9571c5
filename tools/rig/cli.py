# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""Command line of tools/vm."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from . import deps
from .common import RigError, interruptible, say


def parser() -> argparse.ArgumentParser:
    """All subcommands."""
    top = argparse.ArgumentParser(
        prog="tools/vm",
        description="Virtual machines for the demo, the tests and the benches.",
        epilog="NOIOMMU_CACHE: where images are kept (default ~/.cache/baremetal-noiommu). "
        "NOIOMMU_ACCEL: kvm or tcg, instead of trying what works. "
        "NOIOMMU_QEMU: system, trixie or bookworm, whose QEMU emulates (default trixie, that of its backports).",
    )
    commands = top.add_subparsers(dest="command", required=True)
    sub = commands.add_parser("deps", help="list Debian packages that are missing (exit code 1 if any)")
    sub.add_argument("--install", action="store_true", help="install them (root)")
    sub.add_argument("--arm64", action="store_true", help="with what arm64 machines need")
    sub = commands.add_parser("image", help="build images unless they are cached; print their paths")
    sub.add_argument("names", nargs="*", metavar="name")
    sub.add_argument("--of", type=Path, metavar="machines.yml", help="the images of these machines")
    sub = commands.add_parser("up", help="boot the machines of a list and wait for ssh")
    sub.add_argument("--run", type=Path, required=True, metavar="DIR")
    sub.add_argument("machines", type=Path, metavar="machines.yml")
    for name, text in (("down", "stop the machines of a run"), ("status", "tell which run (exit code 0 if all do)")):
        commands.add_parser(name, help=text).add_argument("--run", type=Path, required=True, metavar="DIR")
    for name, text in (
        ("ssh", "log in, or run a command"),
        ("reset", "cut the power and start again"),
        ("snapshot", "save a running machine, memory and disks, or go back to what was saved"),
        ("link", "pull the cable of a machine's management NIC out, or plug it in"),
        ("off", "shut a machine down; its disks stay"),
        ("on", "start a machine that is off"),
        ("enrol-mok", "have a machine that is off trust a certificate under Secure Boot"),
    ):
        sub = commands.add_parser(name, help=text)
        sub.add_argument("--run", type=Path, required=True, metavar="DIR")
        if name == "off":
            sub.add_argument("--cut", action="store_true", help="cut the power instead")
        sub.add_argument("name")
        if name == "ssh":
            sub.add_argument("cmd", nargs=argparse.REMAINDER)
        elif name == "snapshot":
            sub.add_argument("verb", choices=("save", "load"))
            sub.add_argument("tag")
        elif name == "link":
            sub.add_argument("state", choices=("up", "down"))
        elif name == "enrol-mok":
            sub.add_argument("certificate", type=Path, help="PEM or DER")
    return top


def dispatch(args: argparse.Namespace) -> int:
    """Do what was asked; the exit code."""
    if args.command == "deps":
        names = deps.missing(args.arm64)
        if names and args.install:
            deps.install(names)
            return 0
        print("\n".join(names) or "nothing is missing")
        return 1 if names else 0
    if args.command in ("image", "up"):
        deps.require()
    from . import image, run, spec

    if args.command == "image":
        with interruptible():
            machines = spec.load(args.of) if args.of else []
            for name in dict.fromkeys([*args.names, *(machine.image for machine in machines)]):
                print(image.ensure(name))
    elif args.command == "up":
        run.up(args.run, spec.load(args.machines))
    elif args.command == "down":
        say(f"{run.Run(args.run).down()} machine(s) stopped")
    elif args.command == "status":
        return run.status(args.run)
    elif args.command == "ssh":
        run.ssh(args.run, args.name, args.cmd)
    elif args.command == "reset":
        run.reset(args.run, args.name)
    elif args.command == "snapshot":
        run.snapshot(args.run, args.name, args.verb, args.tag)
    elif args.command == "link":
        run.link(args.run, args.name, args.state)
    elif args.command == "off":
        run.off(args.run, args.name, cut=args.cut)
    elif args.command == "on":
        run.on(args.run, args.name)
    elif args.command == "enrol-mok":
        run.enrol_mok(args.run, args.name, args.certificate)
    return 0


def main() -> int:
    """Entry point: user errors without a traceback, 130 after an interrupt."""
    args = parser().parse_args()
    try:
        return dispatch(args)
    except RigError as exc:
        print(exc, file=sys.stderr)
        return 1
    except (OSError, subprocess.CalledProcessError) as exc:  # a full disk, a missing permission, a broken tool
        told = RigError(f"{args.command}: the system refuses", str(exc), "put that right, then run it again")
        print(told, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
