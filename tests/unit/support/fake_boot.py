# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Boot loaders that react as the real ones do: their tools make what is booted from what is configured."""

from __future__ import annotations

import re
import struct
import subprocess

from ansible_collections.baremetal.noiommu.plugins.module_utils._base.command import Runner, RunResult
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree

BASE = "root=UUID=1 ro"


class FakeBoot(Runner):
    """What all have in common."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.ran: list[str] = []
        tree.dir("/lib/modules/6.1.0-1/kernel")
        tree.dir("/var/lib")

    def run(self, *argv: str) -> RunResult:
        self.ran.append(" ".join(argv))
        return RunResult(0, self.do(argv), "")

    def do(self, argv: tuple[str, ...]) -> str:
        """React to a command; return what it prints."""
        raise NotImplementedError

    @property
    def next(self) -> str:
        """What the next boot gets."""
        raise NotImplementedError

    def boot(self) -> None:
        """Reboot."""
        self.tree.file("/proc/cmdline", "BOOT_IMAGE=/boot/vmlinuz-6.1.0-1 " + self.next)


class FakeGrub(FakeBoot):
    """Debian's: a shell reads the settings, as grub-mkconfig does."""

    def __init__(self, tree: Tree, linux: str = "console=ttyS0", default: str = "quiet") -> None:
        super().__init__(tree)
        tree.file("/usr/sbin/update-grub")
        tree.file("/etc/default/grub", 'GRUB_CMDLINE_LINUX="%s"\nGRUB_CMDLINE_LINUX_DEFAULT="%s"' % (linux, default))
        self.do(("update-grub",))
        self.boot()

    def do(self, argv: tuple[str, ...]) -> str:
        assert argv == ("update-grub",)
        script = (
            'set -e; . "$1/grub"; for x in "$1"/grub.d/*.cfg; do if [ -e "$x" ]; then . "$x"; fi; done;'
            ' printf "%s|%s" "$GRUB_CMDLINE_LINUX" "$GRUB_CMDLINE_LINUX_DEFAULT"'
        )
        folder = str(self.tree.at("/etc/default"))
        done = subprocess.run(["sh", "-c", script, "sh", folder], capture_output=True, text=True, check=True)
        linux, _bar, default = done.stdout.partition("|")
        self.tree.file(
            "/boot/grub/grub.cfg",
            "### BEGIN /etc/grub.d/05_local ###\nlinux /other foreign\n### END /etc/grub.d/05_local ###\n"
            "### BEGIN /etc/grub.d/10_linux ###\n"
            "menuentry 'Debian' {\n\tlinux\t/boot/vmlinuz-6.1.0-1 %s %s %s\n}\n"
            "menuentry 'recovery' {\n\tlinux\t/boot/vmlinuz-6.1.0-1 %s single %s\n}\n"
            "### END /etc/grub.d/10_linux ###" % (BASE, linux, default, BASE, linux),
        )
        return ""

    @property
    def entries(self) -> list[str]:
        """The arguments of the normal and of the recovery entry."""
        return re.findall(r"^\tlinux\t\S+ (.*)$", self.tree.root.read_text("/boot/grub/grub.cfg") or "", re.MULTILINE)

    @property
    def next(self) -> str:
        return self.entries[0]


class FakeGrubby(FakeBoot):
    """RHEL's: arguments are removed by name, then added at the end."""

    def __init__(self, tree: Tree, args: str = BASE + " rhgb quiet") -> None:
        super().__init__(tree)
        tree.file("/usr/sbin/grubby")
        self.kernels = {"/boot/vmlinuz-5.14": args, "/boot/vmlinuz-5.13": args}
        self.boot()
        self.ran.clear()

    def do(self, argv: tuple[str, ...]) -> str:
        options = dict(option.split("=", 1) for option in argv[1:])
        if "--info" in options:
            blocks = ['index=0\nkernel="%s"\nargs="%s"\nroot="/dev/sda1"' % entry for entry in self.kernels.items()]
            return "\n".join(blocks) + "\nindex=2\nnon linux entry\n"
        which = options["--update-kernel"]
        for kernel, args in self.kernels.items():
            if which in ("ALL", kernel):
                removed = options["--remove-args"].split()
                words = [word for word in args.split() if word.partition("=")[0] not in removed]
                self.kernels[kernel] = " ".join(words + options.get("--args", "").split())
        return ""

    @property
    def next(self) -> str:
        return next(iter(self.kernels.values()))


RELEASE = "6.1.0-1"
MACHINE_ID = "systemd.machine_id=0123"
KERNEL_INSTALL = ("kernel-install", "add", RELEASE, "/boot/vmlinuz-" + RELEASE)


class FakeSystemdBoot(FakeBoot):
    """kernel-install makes an entry from /etc/kernel/cmdline, or from the running kernel's line."""

    ENTRY = "/boot/efi/loader/entries/id-6.1.0-1.conf"

    def __init__(self, tree: Tree, cmdline: str | None = BASE + "  quiet") -> None:
        super().__init__(tree)
        tree.file("/usr/bin/kernel-install")
        tree.file("/boot/vmlinuz-6.1.0-1")
        tree.file("/boot/efi/loader/entries/id-5.0.conf", "version 5.0\noptions gone")
        tree.file("/proc/cmdline", "initrd=\\id\\initrd " + BASE + " quiet")
        tree.dir("/etc/kernel")
        self.configure()
        if cmdline is not None:
            tree.at("/etc/kernel/cmdline").write_text(cmdline + " \n")
        self.do(KERNEL_INSTALL)
        self.boot()

    def configure(self) -> None:
        """Set the host's layout."""

    def do(self, argv: tuple[str, ...]) -> str:
        assert argv == KERNEL_INSTALL
        text = self.tree.root.read_text("/etc/kernel/cmdline")
        if text is None:
            running = (self.tree.root.read_text("/proc/cmdline") or "").split()
            text = " ".join(word for word in running if not word.startswith(("initrd=", "BOOT_IMAGE=")))
        words = [word for line in self.uncommented(text) for word in line.split()]
        if not any(word.startswith("systemd.machine_id=") for word in words):
            words.append(MACHINE_ID)
        self.make(" ".join(words))
        return ""

    def uncommented(self, text: str) -> list[str]:
        """Return the lines that the plugin of this layout reads."""
        return [line for line in text.splitlines() if not line.lstrip().startswith("#")]

    def make(self, line: str) -> None:
        """Make what is booted."""
        self.tree.file(
            self.ENTRY, "title Debian\nversion %s\nsort-key debian\noptions    %s\nlinux /id/linux" % (RELEASE, line)
        )

    @property
    def next(self) -> str:
        return re.findall(r"^options +(.*)$", self.tree.root.read_text(self.ENTRY) or "", re.MULTILINE)[0]

    def boot(self) -> None:
        self.tree.file("/proc/cmdline", "initrd=\\id\\initrd " + self.next)


class FakeSystemdBootAsInstalled(FakeSystemdBoot):
    """As Debian leaves it: no package writes /etc/kernel/cmdline."""

    def __init__(self, tree: Tree) -> None:
        super().__init__(tree, None)


class FakeUnified(FakeSystemdBoot):
    """kernel-install has ukify make one file of everything, and the firmware or systemd-boot starts it."""

    ENTRY = "/boot/efi/EFI/Linux/id-6.1.0-1.efi"
    key = ""

    def configure(self) -> None:
        self.tree.file("/usr/bin/ukify")
        self.tree.file("/etc/kernel/install.conf", "# by hand\nlayout=uki")
        self.tree.file("/boot/efi/EFI/Linux/id-5.0.efi", unified_image("5.0", "gone"))

    def uncommented(self, text: str) -> list[str]:
        return text.splitlines()  # ukify's plugin takes comments for parameters

    def make(self, line: str) -> None:
        self.tree.file(self.ENTRY, unified_image(RELEASE, " " + line, signed=bool(self.key)))

    @property
    def next(self) -> str:
        data = self.tree.root.read_bytes(self.ENTRY) or b""
        return data[data.index(b"<cmdline>") + 9 : data.index(b"</cmdline>")].decode().strip()

    def boot(self) -> None:
        self.tree.file("/proc/cmdline", self.next)


def unified_image(release: str, line: str, signed: bool = False) -> bytes:
    """Return an image with the sections that matter, laid out as ukify does: a 64-bit PE program."""
    sections = {".text": b"code", ".cmdline": line.encode(), ".uname": release.encode(), ".linux": b"kernel"}
    optional, stub = 112 + 16 * 8, 0x80
    head = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", stub)
    directories = [(0, 0)] * 4 + [(0x9000, 0x100 if signed else 0)] + [(0, 0)] * 11
    coff = struct.pack("<HHIIIHH", 0x8664, len(sections), 0, 0, 0, optional, 0)
    extra = struct.pack("<H", 0x20B).ljust(112, b"\0") + b"".join(struct.pack("<II", *entry) for entry in directories)
    table, body, offset = b"", b"", 0x400
    for name, data in sections.items():
        table += struct.pack("<8sIIIIIIHHI", name.encode(), len(data), offset, 0x200, offset, 0, 0, 0, 0, 0)
        body += data.ljust(0x200, b"\0")
        offset += 0x200
    # For next(), which must not depend on the reader under test; after all sections.
    marks = b"<cmdline>" + line.encode() + b"</cmdline>"
    return (head.ljust(stub, b"\0") + b"PE\0\0" + coff + extra + table).ljust(0x400, b"\0") + body + marks
