# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""kernel-install makes what systemd-boot or the firmware boots of each kernel: an entry, or a unified image."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from .._base.command import Runner
from .._base.errors import HostError
from .._base.files import RenderedFile
from .._base.fs import Root
from .._host import kernels
from . import unified
from .mechanism import BootLoader, Lines, Original
from .words import Parameters, split

# Where the EFI system partition or the one for kernels is mounted, in the order of kernel-install.
BOOT_ROOTS = ("/efi", "/boot", "/boot/efi")
# Set by systemd's stub, which is the first part of a unified image.
STUB_INFO = "/sys/firmware/efi/efivars/StubInfo-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
_MACHINE_ID = "systemd.machine_id="
_SETTINGS = tuple(folder + "/kernel" for folder in ("/etc", "/run", "/usr/local/lib", "/usr/lib"))
_UKI_SETTINGS = tuple(folder + "/uki.conf" for folder in _SETTINGS)


class Bootable(NamedTuple):
    """What is booted of one installed kernel."""

    path: str
    release: str
    line: list[str]


class KernelInstall(BootLoader):
    """What its two layouts have in common."""

    program = "kernel-install"
    path = "/etc/kernel/cmdline"
    overrides = "another layout (`kernel-install inspect`), or a file in /etc/kernel/install.d"
    folder = ""  # below the boot root

    def __init__(self, root: Root, runner: Runner) -> None:
        super().__init__(root, runner)
        self.folders = ["%s/%s" % (boot, self.folder) for boot in BOOT_ROOTS]
        self.places = [os.path.dirname(self.path), *self.folders]

    def bootable(self) -> list[Bootable]:
        """Return what there is of the installed kernels, the newest first; kernel-install remakes no others."""
        installed = kernels.installed(self.root)
        found = [
            entry
            for folder in self.folders
            for name in self.root.listdir(folder)
            for entry in [self.read("%s/%s" % (folder, name))]
            if entry is not None and entry.release in installed
        ]
        return sorted(found, key=lambda entry: kernels.version_key(entry.release), reverse=True)

    def read(self, path: str) -> Bootable | None:
        """Return what a file of the folder boots; None if it is not one of this layout."""
        raise NotImplementedError

    def lines(self) -> Lines:
        found = {entry.path: entry.line for entry in self.bootable()}
        if not found:
            raise HostError(
                "bootloader",
                "%s has nothing to boot of an installed kernel." % self.name,
                evidence=["%s: nothing of an installed kernel" % folder for folder in self.folders],
                remedy="Mount the EFI system partition, or run kernel-install for the kernel, then run again.",
            )
        return found

    def editable(self) -> Lines:
        for path in self._sources:
            text = self.root.read_text(path)
            if text is not None:
                return {"": [word for line in _without_comments(text) for word in split(line)]}
        # Not the running kernel's line, which kernel-install takes: it may have words of one boot only, or such as a
        # rollback has removed since.
        return {"": self.bootable()[0].line}

    def predicted(self, lines: Lines, edited: Lines) -> Lines:
        # kernel-install adds the machine's id where the line has none.
        words = edited[""]
        ids = {path: [word for word in line if word.startswith(_MACHINE_ID)] for path, line in lines.items()}
        has_id = any(word.startswith(_MACHINE_ID) for word in words)
        return {path: words if has_id else words + ids[path] for path in lines}

    @property
    def _sources(self) -> tuple[str, str]:
        return self.path, "/usr/lib/kernel/cmdline"

    def source(self) -> str | None:
        data = self.root.read_bytes(self.path)
        return None if data is None else data.decode("utf-8", "surrogateescape")

    def files(
        self, owner: str, wanted: Parameters | None, lines: Lines, original: Original | None
    ) -> list[RenderedFile]:
        if original is not None:
            return [RenderedFile(self.path, original.source)]
        comments = [line for line in (self.source() or "").splitlines() if line.lstrip().startswith("#")]
        return [RenderedFile(self.path, "".join("%s\n" % line for line in [*comments, " ".join(lines[""])]))]

    def activate(self, lines: Lines) -> None:
        # Without a file, kernel-install would take the running kernel's line, with what has just been removed.
        lent = not any(self.root.exists(path) for path in self._sources)
        if lent:
            self.root.write_file(self.path, " ".join(lines[""]) + "\n")
        try:
            for release in dict.fromkeys(entry.release for entry in self.bootable()):
                images = ("/boot/vmlinuz-" + release, "%s/%s/vmlinuz" % (kernels.MODULES, release))
                image = next((path for path in images if self.root.exists(path)), None)
                if image is not None:
                    self.run(self.program, "add", release, image)
        finally:
            if lent:
                self.root.remove_file(self.path)


class SystemdBoot(KernelInstall):
    """systemd-boot with an entry of text for each kernel."""

    name = "systemd-boot"
    folder = "loader/entries"

    def read(self, path: str) -> Bootable | None:
        if not path.endswith(".conf"):
            return None
        fields = dict(re.findall(r"^([\w-]+)[ \t]+(.*)$", self.root.read_text(path) or "", re.MULTILINE))
        return Bootable(path, fields.get("version", ""), split(fields.get("options", "")))


class UnifiedImages(KernelInstall):
    """Unified kernel images that kernel-install has ukify make: their command line is part of them."""

    name = "unified-kernel-image"
    folder = "EFI/Linux"

    def __init__(self, root: Root, runner: Runner) -> None:
        super().__init__(root, runner)
        reason = self._not_remade()
        if reason:
            raise HostError(
                "bootloader",
                "This host boots unified kernel images, and no run can put parameters into them.",
                evidence=[reason],
                remedy="Put the parameters where these images get their command line from, then rebuild them, sign"
                " them as you do, and reboot.",
            )

    def read(self, path: str) -> Bootable | None:
        image = unified.read(self.root, path) if path.endswith(".efi") else None
        return None if image is None else Bootable(path, image.release, split(image.line))

    def _not_remade(self) -> str | None:
        """Return why kernel-install would not make the same images with another command line; None if it would."""
        layout, generator = (setting(self.root, key) for key in ("layout", "uki_generator"))
        if layout != "uki":
            return "/etc/kernel/install.conf: layout is %s, not uki" % (layout or "not set")
        if generator not in ("", "ukify"):
            return "/etc/kernel/install.conf: uki_generator=%s, which does not read %s" % (generator, self.path)
        if kernels.find_program(self.root, "ukify") is None:
            return "no program ukify in %s" % ":".join(kernels.BIN_DIRS)
        # Firmware that wants a signature would not boot the host any more.
        paths = [entry.path for entry in self.bootable()]
        signed = next((path for path in paths if unified.is_signed(self.root, path)), None)
        if signed is not None and not self._signs():
            return "%s: signed, and %s names no SecureBootPrivateKey to sign it again" % (signed, _UKI_SETTINGS[0])
        return None

    def _signs(self) -> bool:
        text = next(filter(None, map(self.root.read_text, _UKI_SETTINGS)), "")
        return re.search(r"^\s*SecureBootPrivateKey\s*=\s*\S", text, re.MULTILINE) is not None


def setting(root: Root, key: str) -> str:
    """Return a setting of kernel-install; empty if there is none. Drop-ins override the one main file."""
    main = next((text for text in (root.read_text(folder, "install.conf") for folder in _SETTINGS) if text), "")
    dropped: dict[str, str] = {}
    for folder in _SETTINGS:
        for name in root.listdir(folder, "install.conf.d"):
            if name.endswith(".conf"):
                dropped.setdefault(name, root.read_text(folder, "install.conf.d", name) or "")
    texts = [main, *(dropped[name] for name in sorted(dropped))]
    found = re.findall(r"^\s*%s\s*=[ \t]*[\"']?([\w-]*)" % key, "\n".join(texts), re.MULTILINE)
    return str(found[-1]) if found else ""


def _without_comments(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.lstrip().startswith("#")]
