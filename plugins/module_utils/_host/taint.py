# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The kernel's taint mask: what each bit means, what set it if that is known, and whether it was us."""

from __future__ import annotations

import datetime
import re
from typing import Any, NamedTuple

from .._base.errors import HostError
from .._base.fs import Root
from .._base.times import stamp
from .kernel_log import KMSG, KernelLog, LogLine, read_log

TAINTED = "/proc/sys/kernel/tainted"
USER_BIT = 6


class Flag(NamedTuple):
    """One row of the kernel's Documentation/admin-guide/tainted-kernels.rst."""

    letter: str
    name: str
    meaning: str


# The index is the bit.
FLAGS = (
    Flag("P", "proprietary_module", "a proprietary module was loaded"),
    Flag("F", "forced_module", "a module was force loaded"),
    Flag("S", "cpu_out_of_spec", "the kernel runs on an out of specification system"),
    Flag("R", "forced_rmmod", "a module was force unloaded"),
    Flag("M", "machine_check", "the processor reported a machine check exception"),
    Flag("B", "bad_page", "a bad page was referenced or had unexpected flags"),
    Flag("U", "user", "userspace asked for the taint, or did what the kernel cannot vouch for afterwards"),
    Flag("D", "die", "the kernel died recently: there was an oops or a BUG"),
    Flag("A", "overridden_acpi_table", "an ACPI table was overridden"),
    Flag("W", "warn", "the kernel issued a warning"),
    Flag("C", "staging_driver", "a staging driver was loaded"),
    Flag("I", "firmware_workaround", "a workaround for a bug in the platform firmware was applied"),
    Flag("O", "out_of_tree_module", "an externally built module was loaded"),
    Flag("E", "unsigned_module", "an unsigned module was loaded"),
    Flag("L", "soft_lockup", "a soft lockup occurred"),
    Flag("K", "live_patch", "the kernel was live patched"),
    Flag("X", "auxiliary", "auxiliary taint, defined and used by distributions"),
    Flag("T", "randstruct", "the kernel was built with the struct randomization plugin"),
    Flag("N", "in_kernel_test", "an in-kernel test was run"),
    Flag("J", "fwctl_debug", "userspace used a mutating debug operation of fwctl"),
)


class _Trace(NamedTuple):
    """A line of the kernel log that gives the reason for a taint."""

    bit: int
    kind: str
    pattern: re.Pattern[str]
    insecure: bool = False  # whether the line is about insecure passthrough
    process: bool = False  # whether the process is named further below, in the head of the kernel's report


def _trace(bit: int, kind: str, pattern: str, insecure: bool = False, process: bool = False) -> _Trace:
    return _Trace(bit, kind, re.compile(pattern), insecure, process)


# By the kernel's own messages, from 6.1 to 7.3. What taints without a message (a forced rmmod) cannot be here.
_TRACES = (
    _trace(USER_BIT, "process", r"noiommu: handed to (?P<name>.+)\[(?P<pid>\d+)\] without an IOMMU", insecure=True),
    _trace(USER_BIT, "process", r"vfio-noiommu device opened by user \((?P<name>.+):(?P<pid>\d+)\)", insecure=True),
    _trace(USER_BIT, "device", r"(?P<name>\S+): Adding kernel taint for vfio-noiommu group", insecure=True),
    _trace(USER_BIT, "log", r"Setting dangerous option (?P<name>\S+) - tainting kernel"),
    _trace(0, "module", r"^(?P<name>\S+): module license '.*' taints kernel"),
    _trace(1, "module", r"^(?P<name>\S+): .*: kernel tainted\.$"),
    _trace(2, "process", r"Write to unrecognized MSR \S+ by (?P<name>.+) \(pid: (?P<pid>\d+)\)"),
    _trace(4, "log", r"(?P<name>mce): \[Hardware Error\]"),
    _trace(5, "process", r"BUG: Bad (?:page|rss)[- ]\w+ in process (?P<name>\S+)"),
    _trace(
        7,
        "log",
        r"(?P<name>Oops: .*|kernel BUG at \S+|BUG: unable to handle .*|general protection fault.*)",
        process=True,
    ),
    _trace(8, "log", r"ACPI: (?:Table Upgrade: )?[Oo]verrid\w* \[?(?P<name>[^\]]+)"),
    _trace(9, "log", r"WARNING: (?:CPU: \d+ PID: (?P<pid>\d+) )?(?:at )?(?P<name>[\w./-]+\.[chS]:\d+)", process=True),
    _trace(10, "module", r"^(?P<name>\S+): module is from the staging directory"),
    _trace(11, "log", r"(?P<name>Your BIOS is broken.*|\[Firmware (?:Bug|Workaround)\].*)"),
    _trace(12, "module", r"^(?P<name>\S+): loading out-of-tree module taints kernel"),
    _trace(13, "module", r"^(?P<name>\S+): module verification failed: .* tainting kernel"),
    _trace(14, "process", r"soft lockup - CPU#\d+ stuck for \d+s! \[(?P<name>.+):(?P<pid>\d+)\]"),
    _trace(15, "module", r"^(?P<name>\S+): tainting kernel with TAINT_LIVEPATCH"),
    _trace(18, "module", r"^(?P<name>\S+): loading test module taints kernel"),
    _trace(19, "process", r"(?P<name>\S+)\((?P<pid>\d+)\): has requested full access to the physical device"),
)
# The first lines of an oops or a warning name the process that was running.
_RUNNING = re.compile(r"^CPU: \d+ (?:UID: \d+ )?PID: (?P<pid>\d+) Comm: (?P<name>\S+)")
_HEAD_LINES = 12
_ADDRESS = re.compile(r"\b(?P<device>[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])\b")


def report(root: Root) -> dict[str, Any]:
    """Return the decoded mask with attributions, as kernel_taint_info does."""
    mask = root.read_int(TAINTED)
    if mask is None:
        raise HostError(
            "taint",
            "The kernel's taint mask could not be read.",
            evidence=["%s: not a readable number" % TAINTED],
            remedy="Run on the host itself, with /proc mounted.",
        )
    log = read_log(root) if mask else KernelLog([], True, None)
    attributed = _attribute(root, log)
    insecure, evidence = _insecure(root, mask, log, attributed)
    return {
        "mask": mask,
        "flags": [_describe(bit, attributed, log) for bit in range(mask.bit_length()) if mask >> bit & 1],
        "insecure_passthrough": insecure,
        "evidence": evidence,
    }


def _describe(bit: int, attributed: dict[int, list[dict[str, Any]]], log: KernelLog) -> dict[str, Any]:
    flag = FLAGS[bit] if bit < len(FLAGS) else Flag("?", "bit_%d" % bit, "not documented when this collection was made")
    known = attributed.get(bit, [])
    why = None
    if not known:
        why = "no loaded module has this taint, and the kernel log does not mention one"
        if not log.complete:
            why = "no loaded module has this taint, and %s" % (log.problem or "the kernel log is incomplete")
    return {
        "bit": bit,
        "value": 1 << bit,
        "letter": flag.letter,
        "name": flag.name,
        "meaning": flag.meaning,
        "attribution": known,
        "not_attributed": why,
    }


def _entry(kind: str, name: str, evidence: str, **more: Any) -> dict[str, Any]:
    entry = {
        "kind": kind,
        "name": name,
        "pid": None,
        "device": None,
        "since": None,
        "evidence": evidence,
        "insecure_passthrough": False,
    }
    return {**entry, **more}


def _attribute(root: Root, log: KernelLog) -> dict[int, list[dict[str, Any]]]:
    """List what is known to have set each bit: first from the log, which has the time, then the loaded modules."""
    found: dict[int, list[dict[str, Any]]] = {}
    booted = _boot_time(root)
    for number, line in enumerate(log.lines):
        for trace in _TRACES:
            match = trace.pattern.search(line.text)
            if match is None:
                continue
            known = found.setdefault(trace.bit, [])
            entry = _from_log(trace, match, log.lines[number : number + _HEAD_LINES], booted)
            # A process that does it again is not listed again.
            if all(
                (cause["kind"], cause["name"], cause["pid"]) != (entry["kind"], entry["name"], entry["pid"])
                or cause["device"] != entry["device"]
                for cause in known
            ):
                known.append(entry)
            break
    bits = {flag.letter: bit for bit, flag in enumerate(FLAGS)}
    for module in root.listdir("/sys/module"):
        path = "/sys/module/%s/taint" % module
        for letter in root.read_text(path) or "":
            known = found.setdefault(bits.get(letter, -1), [])
            if all(entry["name"] != module for entry in known):
                known.append(_entry("module", module, "%s: %s" % (path, root.read_text(path))))
    return found


def _from_log(trace: _Trace, match: re.Match[str], lines: list[LogLine], booted: int | None) -> dict[str, Any]:
    kind, name = trace.kind, match.group("name")
    pid = match.groupdict().get("pid")
    if trace.process:
        running = next(filter(None, (_RUNNING.match(line.text) for line in lines)), None)
        if running is not None:
            kind, name, pid = "process", running.group("name"), running.group("pid")
    device = _ADDRESS.search(lines[0].text)
    return _entry(
        kind,
        name,
        "%s: %s" % (KMSG, lines[0].text),
        pid=int(pid) if pid else None,
        device=device.group("device") if device else None,
        since=_wall_time(booted, lines[0].usec),
        insecure_passthrough=trace.insecure,
    )


def _insecure(
    root: Root, mask: int, log: KernelLog, attributed: dict[int, list[dict[str, Any]]]
) -> tuple[bool | None, list[str]]:
    """Say whether a process was given a device without protection since boot: yes, no, or not known.

    Bit 6 alone proves nothing: any root process can set it, and so do dangerous module parameters. A clear bit 6 does
    prove something: it cannot be cleared, and both insecure backends set it.
    """
    seen = "%s: %d" % (TAINTED, mask)
    if not mask >> USER_BIT & 1:
        return False, [seen + " (bit 6 is clear, and every insecure use sets it until the next boot)"]
    evidence = [entry["evidence"] for entry in attributed.get(USER_BIT, []) if entry["insecure_passthrough"]]
    evidence += [
        "/sys/kernel/iommu_groups/%s/name: vfio-noiommu (VFIO taints the kernel when it makes such a group)" % group
        for group in root.listdir("/sys/kernel/iommu_groups")
        if root.read_text("/sys/kernel/iommu_groups", group, "name") == "vfio-noiommu"
    ]
    if evidence:
        return True, [seen + " (bit 6 is set)"] + evidence
    why = " (bit 6 is set, which alone proves nothing: any root process and some module parameters set it too)"
    if log.complete:
        return False, [seen + why, "%s: complete since boot, and no insecure use in it" % KMSG]
    return None, [seen + why, log.problem or "%s: incomplete" % KMSG]


def _boot_time(root: Root) -> int | None:
    match = re.search(r"^btime (\d{1,12})$", root.read_text("/proc/stat") or "", re.MULTILINE)
    return int(match.group(1)) if match else None


def _wall_time(booted: int | None, usec: int) -> str | None:
    if booted is None:
        return None
    try:
        return stamp(datetime.datetime.fromtimestamp(booted + usec // 1_000_000, datetime.timezone.utc))
    except (ValueError, OverflowError, OSError):  # a clock that was never set
        return None
