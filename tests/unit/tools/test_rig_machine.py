# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""QEMU's command line, and which QEMU and accelerator a machine gets, without running one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest
from ansible_collections.baremetal.noiommu.tests.unit.support.rig_machines import (
    MACHINES,
    line,
)
from rig import accel, cli, common, deps, image, program, qemu, run, spec
from rig.common import RigError


def test_wires_cross_and_inner_links_are_hubs():
    wires, hubs = run.wiring(MACHINES)
    assert wires["a"][0] == tuple(reversed(wires["b"][0])) and wires["a"][0][0] != wires["a"][0][1]
    assert hubs["b"][1] == hubs["b"][2] and 1 not in hubs["a"]


def test_the_iommu_comes_before_the_devices_and_covers_virtio():
    secure, plain = line(MACHINES[1]), line(MACHINES[0])
    assert secure.index("intel-iommu,intremap=on,caching-mode=on,aw-bits=48") < secure.index("-drive")
    assert all("iommu_platform=on,ats=on" in arg for arg in secure if arg.startswith("virtio-"))
    assert not any("iommu" in arg for arg in plain)
    assert "q35,kernel-irqchip=split" in line(MACHINES[1], "kvm") and "q35" in line(MACHINES[0], "kvm")


def test_the_processor_says_what_is_wanted():
    machine = spec.parse({"machines": [{"name": "a", "vendor": "GenuineIntel"}]})[0]
    for how in ("tcg", "kvm"):
        command = line(machine, how)
        assert command[command.index("-cpu") + 1].endswith(",vendor=GenuineIntel")
        plain = line(MACHINES[0], how)
        assert "vendor" not in plain[plain.index("-cpu") + 1]


WIDE = spec.parse(
    {
        "machines": [
            {
                "name": "w",
                "firmware": "secureboot",
                "numa": [{"memory": 512, "cpus": 1}, {"memory": 768, "cpus": 2}],
                "disks": [{"model": "nvme", "size": 32, "serial": "S1"}],
                "nics": [
                    {"model": "igb", "slot": 3, "addr": "12"},
                    {"model": "virtio-net-pci", "addr": "18", "count": 9},
                ],
            },
            {"name": "u", "firmware": "uefi"},
        ]
    }
)


def test_firmware_numa_nodes_disks_slots_and_functions():
    wide = qemu.command(WIDE[0], "U", "tcg", 2222, {}, {})
    text = " ".join(wide)
    assert "q35,smm=on" in wide and "driver=cfi.pflash01,property=secure,value=on" in wide
    assert "readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.secboot.fd" in text and "file=vars.fd" in text
    assert wide[wide.index("-m") + 1] == "1280" and wide[wide.index("-smp") + 1] == "3,sockets=3"
    assert "node,nodeid=1,cpus=1-2,memdev=memory1" in wide and "memory-backend-ram,id=memory1,size=768M" in wide
    assert "nvme,drive=disk0,serial=S1,addr=08.0" in wide
    port = wide.index("pcie-root-port,id=port3,slot=3,chassis=3,addr=12.0")
    assert wide[port + 2].startswith("igb,") and wide[port + 2].endswith(",bus=port3,addr=00.0")
    assert "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off" in wide
    functions = [arg for arg in wide if arg.startswith("virtio-net-pci,netdev=net")]
    assert len(functions) == 9
    assert [",multifunction=on" in arg for arg in functions] == [True] * 8 + [False]
    uefi = qemu.command(WIDE[1], "U", "tcg", 2222, {}, {})
    assert "q35" in uefi and any("OVMF_CODE_4M.fd" in arg for arg in uefi) and not any(arg == "-numa" for arg in uefi)


def test_a_machine_directory_has_its_command_disks_and_variables(tmp_path, monkeypatch):
    made = []
    (tmp_path / "template").write_text("variables", encoding="utf-8")
    monkeypatch.setattr(qemu, "firmware", lambda machine: ("", tmp_path / "template"))
    monkeypatch.setattr(subprocess, "run", lambda command, check: made.append(command[5:]))
    run.prepare(tmp_path / "w", WIDE[0], ["qemu", "a b"], tmp_path / "base")
    assert (tmp_path / "w/command").read_text(encoding="utf-8") == "qemu 'a b'\n"
    assert (tmp_path / "w/vars.fd").read_text(encoding="utf-8") == "variables"
    assert made == [
        ["-F", "qcow2", "-b", f"{tmp_path}/base", f"{tmp_path}/w/disk.qcow2"],
        [f"{tmp_path}/w/disk-0.qcow2", "32M"],
    ]


@pytest.fixture(name="qemus")
def fake_qemus(tmp_path, monkeypatch):
    """This machine's own QEMU, and an archive with a newer one; both answer --version and -device MODEL,help."""

    def fake(path, version, models):
        path.parent.mkdir(parents=True, exist_ok=True)
        shell = "".join(f"test $2 != {model},help || echo {model} options:\n" for model in models)
        path.write_text(
            f'#!/bin/sh\ntest "$1" != --version || echo "QEMU emulator version {version} (Debian)"\n{shell}',
            encoding="utf-8",
        )
        path.chmod(0o755)

    def loader(root):
        path = root / program.LIBRARIES / "ld-linux-x86-64.so.2"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            '#!/bin/sh\ntest "$1" = --library-path && test -d "$2" || exit 127\nshift 2; program=$1; shift\n'
            'test "$1 $3" = "-L -L" && shift 4; exec "$program" "$@"\n',
            encoding="utf-8",
        )
        path.chmod(0o755)
        return root

    own = tmp_path / "own" / program.SYSTEM
    fake(own, "7.2.17", ["e1000e"])
    monkeypatch.setattr(program, "SYSTEM", str(own))
    root = loader(tmp_path / "unpacked")
    beside = root / "usr/bin" / own.relative_to("/")
    monkeypatch.setattr(
        program,
        "beside",
        lambda root, whole=program.beside: [
            str(beside) if arg.endswith(program.SYSTEM) else arg for arg in whole(root)
        ],
    )
    fake(beside, "11.1.3", ["e1000e", "igb"])
    asked = []
    monkeypatch.setattr(program, "backported", lambda release: asked.append(release) or root)
    monkeypatch.delenv("NOIOMMU_QEMU", raising=False)
    program._emulator.cache_clear()
    yield lambda version, models: fake(own, version, models), asked, beside
    program._emulator.cache_clear()


def test_the_newer_qemu_emulates_and_the_own_one_does_the_rest(qemus):
    _own, asked, beside = qemus
    assert program.choose(WIDE[1], "kvm") == [program.SYSTEM] and not asked
    newer = program.choose(WIDE[1], "tcg")
    assert str(beside) in newer and newer[-1].endswith("usr/share/seabios") and asked == ["trixie"]
    assert program.choose(WIDE[0], "tcg") == program.choose(WIDE[0], "kvm") == newer, "it has igb, the other has not"
    assert asked == ["trixie"], "the archive is asked once"


def test_a_machine_with_a_new_qemu_uses_it(qemus):
    own, asked, _beside = qemus
    own("12.0.1", ["e1000e", "igb"])
    assert program.choose(WIDE[0], "tcg") == [program.SYSTEM] and not asked


@pytest.mark.parametrize("why", ["archive", "loader"])
def test_without_a_newer_qemu_the_own_one_emulates_and_that_is_said(qemus, monkeypatch, capsys, why):
    own, _asked, beside = qemus
    if why == "archive":

        def unreachable(_release):
            raise RigError("package lists of Debian trixie: apt-get failed", "cannot resolve", "apt-get update")

        monkeypatch.setattr(program, "backported", unreachable)
    else:
        beside.unlink()
    assert program.choose(WIDE[1], "tcg") == [program.SYSTEM]
    said = capsys.readouterr().err
    assert (
        "using this machine's own QEMU" in said and ("cannot resolve" if why == "archive" else "does not run") in said
    )
    with pytest.raises(RigError, match="has no igb") as caught:
        program.choose(WIDE[0], "tcg")
    assert "package sources" in caught.value.remedy
    own("8.0.0", ["igb"])
    assert program.choose(WIDE[0], "tcg") == [program.SYSTEM]
    monkeypatch.setenv("NOIOMMU_QEMU", "trixie")
    with pytest.raises(RigError, match="apt-get failed" if why == "archive" else "does not run"):
        program.emulator()


def test_a_qemu_that_was_asked_for(qemus, monkeypatch):
    _own, asked, _beside = qemus
    monkeypatch.setenv("NOIOMMU_QEMU", "system")
    assert program.emulator() == [program.SYSTEM] and not asked
    monkeypatch.setenv("NOIOMMU_QEMU", "bookworm")
    assert program.emulator() != [program.SYSTEM] and asked == ["bookworm"]
    monkeypatch.setenv("NOIOMMU_QEMU", "sid")
    with pytest.raises(RigError, match="not possible") as caught:
        program.emulator()
    assert "system" in caught.value.remedy and "trixie" in caught.value.remedy


def test_a_qemu_that_is_not_there_has_nothing(tmp_path):
    assert not program.has([str(tmp_path / "none")], "igb") and program.version([str(tmp_path / "none")]) == (0, 0)


def test_what_is_unpacked_goes_with_its_own_libraries(tmp_path, monkeypatch):
    planned = []

    class Archive:
        def __init__(self, release):
            self.release = release

        def open(self):
            """Nothing to fetch."""

        def plan(self, packages):
            planned.extend(packages)
            return ["libc6=2", "qemu-system-x86=1:11"]

    monkeypatch.setenv("NOIOMMU_CACHE", str(tmp_path))
    monkeypatch.setattr("kmod.archive.Archive", Archive)
    monkeypatch.setattr("kmod.archive.unpacked", lambda archive, what, packages, into: into.mkdir())
    old = tmp_path / "qemu-0123456789ab"
    old.mkdir()
    os.utime(old, (1, 1))
    root = program.backported("trixie")
    assert planned == ["-t", "trixie-backports", "qemu-system-x86"] and root.parent == tmp_path and not old.exists()
    line = program.beside(root)
    assert line[0] == f"{root}/{program.LIBRARIES}/ld-linux-x86-64.so.2" and line[1:3] == [
        "--library-path",
        f"{root}/{program.LIBRARIES}",
    ]


def test_ssh_is_reachable_from_this_machine_only():
    assert any("hostfwd=tcp:127.0.0.1:2222-:22" in arg for arg in line(MACHINES[0]))


def test_free_ports_differ():
    ports = run.free_ports(20, socket.SOCK_DGRAM)
    assert len(set(ports)) == 20


def test_forced_accelerator(monkeypatch):
    monkeypatch.setenv("NOIOMMU_ACCEL", "tcg")
    assert accel.choose(common.Path("/none"), MACHINES[0]) == "tcg"
    monkeypatch.setenv("NOIOMMU_ACCEL", "xen")
    with pytest.raises(RigError, match="not possible"):
        accel.choose(common.Path("/none"), MACHINES[0])


ARM64 = spec.parse(
    {
        "machines": [
            {"name": "plain", "architecture": "arm64", "image": "debian13-arm64", "nics": [{"slot": 7}]},
            {"name": "secure", "architecture": "arm64", "iommu": "smmuv3", "nics": [{"model": "virtio-net-pci"}]},
        ]
    }
)


def test_arm64_machines():
    plain, secure = (qemu.command(machine, "U", "tcg", 2222, {}, {}) for machine in ARM64)
    assert "virt,gic-version=3" in plain and "virt,gic-version=3,iommu=smmuv3" in secure and "cortex-a72" in plain
    assert any("AAVMF_CODE.fd" in arg for arg in plain) and ARM64[0].firmware == "uefi"
    assert not any("ICH9" in arg or "iommu_platform" in arg for arg in plain)
    assert all("iommu_platform=on" in arg for arg in secure if arg.startswith("virtio-"))
    assert program.choose(ARM64[0], "tcg") == ["qemu-system-aarch64"]


def test_arm64_is_emulated_whatever_this_machine_can(monkeypatch):
    monkeypatch.setenv("NOIOMMU_ACCEL", "kvm")
    assert accel.choose(common.Path("/none"), ARM64[0]) == "tcg"
    assert accel.choose(common.Path("/none"), MACHINES[0]) == "kvm"


@pytest.mark.parametrize(
    ("machine", "name", "remedy"),
    [
        (ARM64[0], "debian13", "architecture: amd64"),
        (MACHINES[0], "debian13-arm64", "architecture: arm64"),
        (MACHINES[0], "debian13-systemd-boot", "firmware: uefi"),
    ],
)
def test_a_machine_that_cannot_boot_its_image(machine, name, remedy):
    with pytest.raises(RigError, match="cannot boot the image") as caught:
        run.fits(machine, image.recipe(name))
    assert remedy in caught.value.remedy
    run.fits(ARM64[0], image.recipe("debian13-arm64"))
    run.fits(WIDE[1], image.recipe("debian13-systemd-boot"))
    run.fits(WIDE[1], image.recipe("debian13"))


def test_missing_packages_are_named(monkeypatch, capsys):
    monkeypatch.setattr(deps, "PACKAGES", {"no-such-package-at-all": "to test", "dpkg": "is there"})
    assert deps.missing() == ["no-such-package-at-all"]
    monkeypatch.setattr(deps, "ARM64", {"no-such-emulator": "to test"})
    assert deps.missing() == ["no-such-package-at-all"]
    assert deps.missing(arm64=True) == ["no-such-package-at-all", "no-such-emulator"]
    with pytest.raises(RigError, match="no-such-emulator") as caught:
        deps.require(arm64=True)
    assert caught.value.remedy.endswith("--install --arm64")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(sys, "argv", ["vm", "deps", "--install"])
    assert cli.main() == 1
    err = capsys.readouterr().err
    assert "only root can install" in err and "remedy: run: sudo apt-get install" in err and "no-such-package" in err
