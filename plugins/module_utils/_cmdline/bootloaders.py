# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The distributions' own mechanisms for the kernel command line of the next boot.

Each one shows the lines that it boots with, says which of its files have to change for a set of parameters, and then
has them take effect. Only GRUB as Debian and Ubuntu have it is proven on machines.
"""

from __future__ import annotations

import os
import re
from typing import Dict, Iterable, List, NamedTuple

from .._base.command import Runner
from .._base.errors import HostError
from .._base.files import HEADER, RenderedFile
from .._base.fs import Root
from .._host import kernels
from .words import RUNNING, Parameters, name_of, split

# Words by kernel. Where all kernels share one line, its name is the empty string.
Lines = Dict[str, List[str]]


class Original(NamedTuple):
    """What was there before anything of ours."""

    lines: Lines
    source: str | None  # the file that is edited in place, if this mechanism has one and it was there


_LOADER_INFO = "/sys/firmware/efi/efivars/LoaderInfo-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"


class BootLoader:
    """One mechanism. Subclasses say how."""

    name = ""
    program = ""  # what makes the files take effect
    places: list[str] = []  # directories that it writes to

    def __init__(self, root: Root, runner: Runner) -> None:
        self.root, self.runner = root, runner

    def lines(self) -> Lines:
        """Return the command lines that the next boot gets, from what is really booted."""
        raise NotImplementedError

    def editable(self) -> Lines:
        """Return the lines that a change starts from; what boots is made of them."""
        return self.lines()

    def source(self) -> str | None:
        """Return the text of the one file that is edited in place, None if there is none or it is not there."""
        return None

    def files(
        self, owner: str, wanted: Parameters | None, lines: Lines, original: Original | None
    ) -> list[RenderedFile]:
        """Return the files for these lines; ``original`` is given where nothing of ours is left."""
        raise NotImplementedError

    def activate(self, lines: Lines) -> None:
        """Have the next boot use the files, or these lines."""
        raise NotImplementedError

    def rewritten_owners(self, owner: str, owners: Iterable[str]) -> list[str]:
        """Return whose parameters are taken off the lines and added again, in this order, when one owner changes."""
        return [owner]

    def run(self, *argv: str) -> str:
        """Run a program; explain its failure."""
        done = self.runner.run(*argv)
        if done.rc != 0:
            said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-4:]
            raise HostError(
                "bootloader",
                "%s failed: %s" % (argv[0], said[-1] if said else "no reason given"),
                evidence=["`%s`: rc %d" % (" ".join(argv), done.rc), *said],
                remedy="Make the command succeed by hand (a full or read-only /boot is the usual reason), then run"
                " again.",
            )
        return done.stdout


class Grub(BootLoader):
    """Debian and Ubuntu: a fragment for update-grub."""

    name = "grub"
    program = "update-grub"
    places = ["/etc/default", "/boot/grub"]
    defaults = "/etc/default/grub"
    config = "/boot/grub/grub.cfg"

    @staticmethod
    def fragment(owner: str) -> str:
        """Return an owner's fragment; read after all others, so that it adds to what they set."""
        return "/etc/default/grub.d/zz-noiommu-%s.cfg" % owner

    def lines(self) -> Lines:
        text = self.root.read_text(self.config)
        if text is None:
            raise HostError(
                "bootloader",
                "GRUB's configuration cannot be read.",
                evidence=["%s: %s" % (self.config, "unreadable" if self.root.exists(self.config) else "absent")],
                remedy="Run with become: true; where it is absent, run update-grub once by hand.",
            )
        # The menu's first entry is what boots; entries of other scripts do not come from the fragments.
        ours = re.findall(r"^### BEGIN \S*/10_linux\S* ###$(.*?)^### END ", text, re.MULTILINE | re.DOTALL)
        # On ZFS, Ubuntu's 10_linux is empty, and 10_linux_zfs starts with a function whose kernel is a variable.
        entry = re.compile(r'^\s*linux(?:16|efi)?\s+(?!"?\$)\S+(.*)$', re.MULTILINE)
        line = next(filter(None, map(entry.search, ours or [text])), None)
        return {"": split(line.group(1)) if line else []}

    def files(
        self, owner: str, wanted: Parameters | None, lines: Lines, original: Original | None
    ) -> list[RenderedFile]:
        return [RenderedFile(self.fragment(owner), None if wanted is None else _grub_fragment(wanted))]

    def activate(self, lines: Lines) -> None:
        self.run(self.program)

    def rewritten_owners(self, owner: str, owners: Iterable[str]) -> list[str]:
        # Everything is made of the fragments, and they are read in the order of their names.
        return sorted({owner, *owners}, key=self.fragment)


def _grub_fragment(wanted: Parameters) -> str:
    text = HEADER
    if wanted.without:
        text += "# Taken off while this file is here: %s\n" % " ".join(wanted.without)
        edits = " ".join("-e ':%d' -e 's/ %s / /' -e 't%d'" % (i, _sed(w), i) for i, w in enumerate(wanted.without))
        for variable in ("GRUB_CMDLINE_LINUX", "GRUB_CMDLINE_LINUX_DEFAULT"):
            text += "%s=\"$(printf ' %%s \\n' \"${%s}\" | tr -s ' ' | sed %s -e 's/^ //' -e 's/ $//')\"\n" % (
                variable,
                variable,
                edits,
            )
    if wanted.parameters:
        text += "# Not for the recovery entries: those boot as the distribution made them.\n"
        text += 'GRUB_CMDLINE_LINUX_DEFAULT="${GRUB_CMDLINE_LINUX_DEFAULT:+${GRUB_CMDLINE_LINUX_DEFAULT} }%s"\n' % (
            " ".join(wanted.words)
        )
    return text


def _sed(word: str) -> str:
    return re.sub(r"([.\[\]/])", r"\\\1", word)


class Grubby(BootLoader):
    """RHEL and its kin: grubby keeps the arguments of every kernel, and those of kernels to come."""

    name = "grubby"
    program = "grubby"
    places = ["/etc", "/boot"]

    def lines(self) -> Lines:
        found: Lines = {}
        kernel = None
        for line in self.run(self.program, "--info=ALL").splitlines():
            key, _equals, value = line.partition("=")
            value = value.strip().strip('"') if key != "args" else re.sub(r'^"(.*)"$', r"\1", value.strip())
            if key == "kernel":
                kernel = value
                found[kernel] = []
            elif key == "args" and kernel is not None:
                found[kernel] = split(value)
        if not found:
            raise HostError(
                "bootloader",
                "grubby lists no kernel to boot.",
                evidence=["`grubby --info=ALL`: names no kernel"],
                remedy="Look at /boot/loader/entries; reinstall the kernel package if it is empty.",
            )
        return found

    def files(
        self, owner: str, wanted: Parameters | None, lines: Lines, original: Original | None
    ) -> list[RenderedFile]:
        return []

    def activate(self, lines: Lines) -> None:
        """grubby replaces arguments by name: it is given all words of each name that differs, in their order."""
        calls: dict[str, tuple[str, str]] = {}
        for kernel, now in self.lines().items():
            want = lines.get(kernel, now)
            names = sorted({name_of(word) for word in [*now, *want] if now.count(word) != want.count(word)})
            # Also where only the order changed, which count() does not show.
            names = names or sorted({name_of(word) for word in want} if now != want else [])
            if names:
                calls[kernel] = (" ".join(names), " ".join(word for word in want if name_of(word) in names))
        # What is set for all also reaches kernels that are installed later.
        everywhere = len(set(calls.values())) == 1 and len(calls) == len(lines)
        for kernel, (gone, added) in [("ALL", next(iter(calls.values())))] if everywhere else calls.items():
            options = ["--remove-args=" + gone] + (["--args=" + added] if added else [])
            self.run(self.program, "--update-kernel=" + kernel, *options)


class SystemdBoot(BootLoader):
    """systemd-boot: kernel-install makes each kernel's entry from /etc/kernel/cmdline."""

    name = "systemd-boot"
    program = "kernel-install"
    places = ["/etc/kernel"]
    path = "/etc/kernel/cmdline"
    entries = ("/efi/loader/entries", "/boot/efi/loader/entries", "/boot/loader/entries")

    def __init__(self, root: Root, runner: Runner) -> None:
        super().__init__(root, runner)
        layout = re.search(r"^\s*layout\s*=\s*uki", root.read_text("/etc/kernel/install.conf") or "", re.MULTILINE)
        if layout:
            raise HostError(
                "bootloader",
                "This host boots unified kernel images, whose command line is part of a possibly signed file.",
                evidence=["/etc/kernel/install.conf: %s" % layout.group(0).strip()],
                remedy="Put the parameters into /etc/kernel/cmdline and rebuild and sign the images as you do.",
            )

    def lines(self) -> Lines:
        found: Lines = {}
        installed = kernels.installed(self.root)
        for directory in self.entries:
            for name in self.root.listdir(directory):
                fields = dict(re.findall(r"^(\w+)\s+(.*)$", self.root.read_text(directory, name) or "", re.MULTILINE))
                # kernel-install remakes the entries of kernels that are installed, and only those.
                if name.endswith(".conf") and fields.get("version") in installed:
                    found["%s/%s" % (directory, name)] = split(fields.get("options", ""))
        if not found:
            raise HostError(
                "bootloader",
                "systemd-boot has no entry to boot.",
                evidence=["%s: no *.conf of an installed kernel" % directory for directory in self.entries],
                remedy="Mount the EFI system partition, or run kernel-install for the kernel, then run again.",
            )
        return found

    def editable(self) -> Lines:
        for path in (self.path, "/usr/lib/kernel/cmdline"):
            text = self.root.read_text(path)
            if text is not None:
                return {"": split(text)}
        words = split(self.root.read_text(RUNNING) or "")
        return {"": [word for word in words if name_of(word) not in ("BOOT_IMAGE", "initrd")]}

    def source(self) -> str | None:
        data = self.root.read_bytes(self.path)
        return None if data is None else data.decode("utf-8", "surrogateescape")

    def files(
        self, owner: str, wanted: Parameters | None, lines: Lines, original: Original | None
    ) -> list[RenderedFile]:
        text = " ".join(lines[""]) + "\n" if original is None else original.source
        return [RenderedFile(self.path, text)]

    def activate(self, lines: Lines) -> None:
        for release in kernels.installed(self.root):
            images = ("/boot/vmlinuz-" + release, "%s/%s/vmlinuz" % (kernels.MODULES, release))
            image = next((path for path in images if self.root.exists(path)), None)
            if image is not None:
                self.run(self.program, "add", release, image)


def detect(root: Root, runner: Runner) -> BootLoader:
    """Return this host's mechanism: what the firmware says was booted decides, then the distribution's tools."""
    said = (root.read_bytes(_LOADER_INFO) or b"").decode("utf-16-le", "ignore")
    if "systemd-boot" in said:
        return SystemdBoot(root, runner)
    if kernels.find_program(root, Grub.program) and root.exists(Grub.defaults):
        return Grub(root, runner)
    if kernels.find_program(root, Grubby.program):
        return Grubby(root, runner)
    has_entries = any(root.listdir(directory) for directory in SystemdBoot.entries)
    if kernels.find_program(root, SystemdBoot.program) and has_entries:
        return SystemdBoot(root, runner)
    raise HostError(
        "bootloader",
        "This host's kernel command line cannot be changed by any known mechanism.",
        evidence=[
            "no update-grub with %s, no grubby, no kernel-install with entries in %s"
            % (Grub.defaults, ", ".join(SystemdBoot.entries)),
        ],
        remedy="Put the parameters on the command line as this host's boot loader wants it, and reboot.",
    )


def read_only(root: Root, places: list[str]) -> list[str]:
    """Return the places whose filesystem is mounted read-only."""
    found = []
    for place in places:
        try:
            if os.statvfs(root.path(place)).f_flag & os.ST_RDONLY:
                found.append(place)
        except OSError:
            continue  # not there: it is made, or explained where it is needed
    return found
