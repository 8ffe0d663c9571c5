# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""GRUB as Debian and Ubuntu have it, and grubby of RHEL and its kin."""

from __future__ import annotations

import re
from typing import Iterable

from .._base.errors import HostError
from .._base.files import HEADER, RenderedFile
from .mechanism import BootLoader, Lines, Original
from .words import Parameters, name_of, split


class Grub(BootLoader):
    """Debian and Ubuntu: a fragment for update-grub."""

    name = "grub"
    program = "update-grub"
    places = ["/etc/default", "/boot/grub"]
    overrides = "settings that override these, such as another file in /etc/default/grub.d"
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
    overrides = "another program that rewrites /boot/loader/entries or grubenv"

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
