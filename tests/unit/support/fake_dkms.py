# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A DKMS, compiler and depmod that work on a tree in a temporary directory, and fail on demand."""

from __future__ import annotations

from typing import Callable

from ansible_collections.baremetal.noiommu.plugins.module_utils._base.command import Runner, RunResult

from .tree import Tree

KERNEL = "6.1.0-56-amd64"
OTHER = "6.12.0-1-amd64"
ARCH = "x86_64"
DONE = RunResult(0, "", "")


class FakeDkms(Runner):
    """Does to the tree what dkms 3 does to a host."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.ran: list[str] = []
        self.failing: dict[str, RunResult] = {}
        self.log = ""
        self.says = ""
        self.signs = False
        self.packing: tuple[str, Callable[[bytes], bytes]] = ("", bytes)  # suffix and way of compressed modules

    def run(self, *argv: str) -> RunResult:
        line = " ".join(argv)
        self.ran.append(line)
        for part, result in self.failing.items():
            if part in line:
                if argv[:2] == ("dkms", "build"):
                    self.tree.file("%s/build/make.log" % self._home(argv), self.log)
                return result
        if argv[0] == "dkms":
            return getattr(self, "_" + argv[1])(argv)
        if argv[0] == "modprobe":
            self.tree.remove("/sys/module/" + argv[-1])
        return DONE

    @staticmethod
    def _option(argv: tuple[str, ...], name: str, default: str = "") -> str:
        return argv[argv.index(name) + 1] if name in argv else default

    def _home(self, argv: tuple[str, ...]) -> str:
        tree = self._option(argv, "--dkmstree", "/var/lib/dkms")
        return "%s/%s/%s" % (tree, self._option(argv, "-m"), self._option(argv, "-v"))

    def _add(self, argv: tuple[str, ...]) -> RunResult:
        source = "%s/%s-%s" % (
            self._option(argv, "--sourcetree", "/usr/src"),
            self._option(argv, "-m"),
            self._option(argv, "-v"),
        )
        if not self.tree.root.exists(source, "dkms.conf"):
            return RunResult(2, "", "Error! Could not find module source directory.\n")
        self.tree.link(self._home(argv) + "/source", source)
        return DONE

    def _build(self, argv: tuple[str, ...]) -> RunResult:
        home, name = self._home(argv), self._option(argv, "-m")
        source = self.tree.root.realpath(home, "source")
        code = self.tree.root.read_text(source, name + ".c")
        place = "%s/%s/%s" % (home, self._option(argv, "-k"), ARCH)
        built = "built from %s for %s\n" % (code, self._option(argv, "-k"))
        built += "~Module signature appended~\n" * self.signs
        self.tree.file("%s/module/%s.ko%s" % (place, name, self.packing[0]), self.packing[1](built.encode()))
        self.tree.file(place + "/log/make.log", "fine")
        if not self.tree.root.exists("/var/lib/dkms/mok.pub"):
            self.tree.file("/var/lib/dkms/mok.key", "key")
            self.tree.file("/var/lib/dkms/mok.pub", "pub")
        return RunResult(0, self.says, "")

    def _install(self, argv: tuple[str, ...]) -> RunResult:
        home, name, kernel = self._home(argv), self._option(argv, "-m"), self._option(argv, "-k")
        built = self.tree.root.read_bytes(home, kernel, ARCH, "module", name + ".ko")
        if built is None:
            return RunResult(3, "", "Error! The module was not built.\n")
        self.tree.file("/lib/modules/%s/updates/dkms/%s.ko" % (kernel, name), built)
        index = "/lib/modules/%s/modules.dep" % kernel
        if self.tree.root.exists(index):
            self.tree.file(index, "updates/dkms/%s.ko:" % name)
        self.tree.link("/var/lib/dkms/%s/kernel-%s-%s" % (name, kernel, ARCH), "%s/%s/%s" % (home, kernel, ARCH))
        return DONE

    def _remove(self, argv: tuple[str, ...]) -> RunResult:
        home, name = self._home(argv), self._option(argv, "-m")
        if not self.tree.root.exists(self.tree.root.realpath(home, "source"), "dkms.conf"):
            return RunResult(4, "", "Error! Could not locate dkms.conf file.\n")
        wanted = self._option(argv, "-k")
        for kernel in self.tree.root.listdir(home):
            if kernel in ("source", "build") or (wanted and kernel != wanted):
                continue
            self.tree.remove("/lib/modules/%s/updates/dkms/%s.ko" % (kernel, name))
            for made in ("/updates/dkms", "/updates"):
                self.tree.root.remove_empty_dir("/lib/modules/" + kernel + made)
            self.tree.remove("/var/lib/dkms/%s/kernel-%s-%s" % (name, kernel, ARCH))
            self.tree.remove("%s/%s" % (home, kernel))
        if not wanted:
            self.tree.remove(home)
            self.tree.root.remove_empty_dir("/var/lib/dkms/" + name)
        return DONE


def build_host(tree: Tree) -> None:
    """A Debian host with two kernels, the first running, and all that a build needs."""
    tree.file("/proc/sys/kernel/osrelease", KERNEL)
    tree.file("/etc/os-release", 'ID=debian\nVERSION_ID="12"')
    for program in ("sbin/dkms", "bin/gcc-12", "bin/make"):
        tree.file("/usr/" + program)
    tree.dir("/tmp")
    tree.dir("/usr/src")
    tree.dir("/var/lib/dkms")
    for kernel in (KERNEL, OTHER):
        tree.dir("/lib/modules/%s/kernel" % kernel)
        tree.file("/usr/src/linux-headers-%s/Makefile" % kernel)
        tree.link("/lib/modules/%s/build" % kernel, "/usr/src/linux-headers-" + kernel)
        tree.file("/boot/config-" + kernel, 'CONFIG_CC_VERSION_TEXT="gcc-12 (Debian 12.2.0) 12.2.0"')
