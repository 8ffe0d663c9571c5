# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""QEMU's command line, the wires, the inventory and the record of a run, without running anything."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import time
import uuid
import zlib

import pytest
from rig import accel, cli, common, deps, disk, grub, image, initramfs, program, qemu, run, spec, systemd_boot
from rig.common import RigError

MACHINES = spec.parse(
    {
        "machines": [
            {"name": "a", "groups": ["plain"], "nics": [{"link": "w"}, {"model": "virtio-net-pci"}]},
            {
                "name": "b",
                "iommu": "intel",
                "groups": ["plain"],
                "vars": {"k": "v"},
                "nics": [{"link": "w"}, {"link": "in"}, {"link": "in", "model": "virtio-net-pci"}],
            },
        ]
    }
)


def line(machine, how="tcg"):
    wires, hubs = run.wiring(MACHINES)
    return qemu.command(machine, "U", how, 2222, wires[machine.name], hubs[machine.name])


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


@pytest.fixture(name="record")
def stopped_machine(tmp_path):
    """A run whose machine `a` is off."""
    record = run.Run(tmp_path)
    record.machines = {"a": {"uuid": str(uuid.uuid4()), "port": 1, "accel": "tcg"}}
    record.save()
    (tmp_path / "a").mkdir()
    return record


def test_a_machine_that_is_off_or_on_already(record, monkeypatch, capsys):
    run.off(record.dir, "a")
    assert "off already" in capsys.readouterr().err
    monkeypatch.setattr(run.Run, "pid", lambda self, name: 1)
    for function in (run.on, lambda *args: run.enrol_mok(*args, common.Path("k"))):
        with pytest.raises(RigError, match="is running") as caught:
            function(record.dir, "a")
        assert caught.value.evidence and caught.value.remedy


def test_a_shutdown_that_does_not_end_is_told(record, monkeypatch):
    monkeypatch.setattr(run.Run, "pid", lambda self, name: 1)
    monkeypatch.setattr(run, "OFF_TIMEOUT", -1)
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: None)
    (record.dir / "a/serial.log").write_text("Stopping something...", encoding="utf-8")
    with pytest.raises(RigError, match="still running") as caught:
        run.off(record.dir, "a")
    assert "Stopping something" in caught.value.evidence and "--cut" in caught.value.remedy


def test_enrolling_needs_variables_the_tool_and_a_certificate(record, monkeypatch, tmp_path):
    key = tmp_path / "key"
    key.write_text("no certificate", encoding="utf-8")
    with pytest.raises(RigError, match="no firmware variables") as caught:
        run.enrol_mok(record.dir, "a", key)
    assert "firmware: secureboot" in caught.value.remedy
    (record.dir / "a/vars.fd").touch()
    monkeypatch.setattr(run.shutil, "which", lambda name: str(tmp_path / "absent"))
    with pytest.raises(RigError, match=r"tool .* is missing"):
        run.enrol_mok(record.dir, "a", key)
    monkeypatch.setattr(run.shutil, "which", lambda name: "/bin/false")
    with pytest.raises(RigError, match="cannot be enrolled") as caught:
        run.enrol_mok(record.dir, "a", key)
    assert "/var/lib/dkms/mok.pub" in caught.value.remedy


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


def test_inventory():
    hosts = run.inventory(MACHINES, {"a": 1, "b": 2}, common.Path("/k"))["all"]["children"]
    assert set(hosts) == {"vms", "plain"} and set(hosts["plain"]["hosts"]) == {"a", "b"}
    b = hosts["vms"]["hosts"]["b"]
    assert (b["ansible_port"], b["k"], b["rig_iommu"], b["ansible_ssh_private_key_file"]) == (2, "v", "intel", "/k")
    mac = MACHINES[1].nics[1].mac
    assert b["rig_nics"][1] == {"address": "0000:00:11.0", "mac": mac, "model": "e1000e", "link": "in", "slot": None}
    assert "UserKnownHostsFile=/dev/null" in b["ansible_ssh_common_args"]


def test_only_a_qemu_with_the_recorded_uuid_is_killed(tmp_path):
    """A process that merely names the uuid survives `down`; one that looks like our QEMU does not."""
    ident = str(uuid.uuid4())
    other = subprocess.Popen(["sh", "-c", "read x", ident], stdin=subprocess.PIPE)
    fake = subprocess.Popen(
        ["loader", "-c", "read x", "qemu-system-fake", ident], executable="/bin/sh", stdin=subprocess.PIPE
    )
    try:
        while ident.encode() not in common.Path(f"/proc/{fake.pid}/cmdline").read_bytes():
            time.sleep(0.01)  # empty for an instant after exec
        record = run.Run(tmp_path)
        record.machines = {"a": {"uuid": ident, "port": 1, "accel": "tcg"}}
        record.save()
        assert run.Run(tmp_path).pid("a") == fake.pid
        assert run.Run(tmp_path).down() == 1
        assert other.poll() is None and qemu.find(ident) is None
        assert run.Run(tmp_path).down() == 0 and run.status(tmp_path) == 1
    finally:
        for proc in (other, fake):
            proc.kill()
            proc.wait()


def test_a_broken_record_and_an_unknown_machine_are_told(tmp_path):
    with pytest.raises(RigError, match="no machine 'x'"):
        run.reset(tmp_path, "x")
    (tmp_path / "state.json").write_text("[]", encoding="utf-8")
    with pytest.raises(RigError, match="no record of a run"):
        run.Run(tmp_path)


def test_a_directory_of_somebody_else_is_not_removed(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/precious").write_text("x", encoding="utf-8")
    with pytest.raises(RigError, match="not ours"):
        run.prepare(tmp_path / "a", MACHINES[0], ["true"], tmp_path)
    assert (tmp_path / "a/precious").exists()


def test_the_monitor_is_reached_through_a_path_longer_than_a_socket_address(tmp_path):
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    with pytest.raises(RigError, match="does not answer"):
        qemu.monitor(deep, "system_reset")
    code = (
        "import socket; s=socket.socket(socket.AF_UNIX); s.bind('qmp.sock'); s.listen()\n"
        "print(flush=True); c=s.accept()[0]\n"
        "c.send(b'{\"QMP\":{}}\\n'); c.recv(999); c.send(b'{\"return\":{}}\\n'); c.recv(999)\n"
        'c.send(b\'{"event":"RESET"}\\n{"return":{"ok":1}}\\n\'); c.recv(1)'
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=deep, stdout=subprocess.PIPE) as server:
        server.stdout.readline()
        assert qemu.monitor(deep, "system_reset") == {"ok": 1}


def test_free_ports_differ():
    ports = run.free_ports(20, socket.SOCK_DGRAM)
    assert len(set(ports)) == 20


def test_forced_accelerator(monkeypatch):
    monkeypatch.setenv("NOIOMMU_ACCEL", "tcg")
    assert accel.choose(common.Path("/none"), MACHINES[0]) == "tcg"
    monkeypatch.setenv("NOIOMMU_ACCEL", "xen")
    with pytest.raises(RigError, match="not possible"):
        accel.choose(common.Path("/none"), MACHINES[0])


def test_recipes_and_cache_keys():
    recipe = image.recipe("debian12")
    assert (
        image.cache_key(recipe, "k")
        == image.cache_key(image.recipe("debian12"), "k")
        != image.cache_key(recipe, "other")
    )
    assert image.cache_key({**recipe, "disk_mib": 1}, "k") != image.cache_key(recipe, "k")
    with pytest.raises(RigError, match="no image 'debian99'") as caught:
        image.recipe("debian99")
    assert "debian12" in caught.value.remedy


def test_images_of_a_machine_list(tmp_path, monkeypatch, capsys):
    (tmp_path / "m.yml").write_text(
        "machines: [{name: a, image: x}, {name: b, image: y}, {name: c, image: x}]", encoding="utf-8"
    )
    monkeypatch.setattr(deps, "require", lambda: None)
    monkeypatch.setattr(image, "ensure", lambda name: f"/images/{name}")
    monkeypatch.setattr(sys, "argv", ["vm", "image", "z", "--of", str(tmp_path / "m.yml")])
    assert cli.main() == 0
    assert capsys.readouterr().out.split() == ["/images/z", "/images/x", "/images/y"]


def test_sources_and_what_a_guest_sees():
    where = {"Debian": "http://127.0.0.1:3142/d", "Debian-Security": "http://s/x"}
    lines = image.sources(image.recipe("debian12"), where)
    assert lines == [
        "deb http://127.0.0.1:3142/d bookworm main",
        "deb http://127.0.0.1:3142/d bookworm-updates main",
        "deb http://s/x bookworm-security main",
    ]
    assert image.for_guest(lines[0]) == "deb http://10.0.2.2:3142/d bookworm main"
    assert image.for_guest(lines[2]) == lines[2]


def test_proxies_reach_the_guest(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://localhost:8080/")
    # the machine's own apt setting comes first
    assert sum(option.startswith("Acquire::http::Proxy ") for option in image.apt_options()) == 1


def test_recipes_extend_others(tmp_path, monkeypatch):
    (tmp_path / "base.yml").write_text("suite: x\npackages: [a]\nfiles: {/a: A, /b: B}\n", encoding="utf-8")
    (tmp_path / "more.yml").write_text(
        "extends: base\nsuite: y\npackages: [b]\nfiles: {/b: C}\nmask: [m]\n", encoding="utf-8"
    )
    monkeypatch.setattr(image, "IMAGES", tmp_path)
    assert image.recipe("more") == {
        "suite": "y",
        "packages": ["a", "b"],
        "files": {"/a": "A", "/b": "C"},
        "mask": ["m"],
    }
    assert image.recipe("base")["packages"] == ["a"]


RECIPES = [path.stem for path in image.IMAGES.glob("*.yml")]


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_names_an_archive_suite_and_has_what_boots_it(name):
    whole = image.recipe(name)
    architecture, packages = whole["architecture"], set(whole["packages"])
    assert image.CHAINS[whole["boot"]].packages(architecture) <= packages
    assert not any(
        package.endswith(f"-{other}") for package in packages for other in {"amd64", "arm64"} - {architecture}
    )
    assert image.sources(whole, image.DEFAULT_ARCHIVES)[0].split()[2] == whole["suite"]
    assert ("busybox-static" in packages) == ("initramfs" in whole) == (architecture == "arm64")
    console = "ttyS0" if architecture == "amd64" else "ttyAMA0"
    assert f"console={console}" in whole["cmdline"]


def test_a_recipe_leaves_packages_out():
    unified = image.recipe("debian13-unified")
    assert "dracut" in unified["packages"] and "systemd-boot" in unified["packages"]
    assert not {"initramfs-tools", "grub-pc-bin", "leave_out"} & {*unified["packages"], *unified}
    assert "initramfs-tools" in image.recipe("debian13-systemd-boot")["packages"]


def test_an_image_changes_with_what_builds_it_and_not_with_what_builds_others(monkeypatch, tmp_path):
    names = ("debian12", "debian13-systemd-boot", "debian13-arm64")

    def keys():
        return [image.cache_key(image.recipe(name)) for name in names]

    before = keys()
    changed = []
    for builder in (grub, systemd_boot, initramfs, disk):
        (tmp_path / "other.py").write_text("other", encoding="utf-8")
        with monkeypatch.context() as patch:
            patch.setattr(builder, "__file__", str(tmp_path / "other.py"))
            changed.append([one != other for one, other in zip(before, keys())])
    assert changed == [[True, False, True], [False, True, False], [False, False, True], [True, True, True]]


@pytest.mark.parametrize(("architecture", "program"), [("amd64", "shimx64"), ("arm64", "shimaa64")])
def test_an_image_without_signed_programs_is_told(tmp_path, architecture, program):
    with pytest.raises(RigError, match="UEFI firmware") as caught:
        grub.system_partition("i", architecture, tmp_path, tmp_path, tmp_path / "log")
    assert program in caught.value.evidence and "shim-signed" in caught.value.remedy
    assert f"grub-efi-{architecture}-signed" in caught.value.remedy


def test_a_bios_gets_its_part_and_arm64_has_none(tmp_path):
    (tmp_path / "boot").mkdir()
    (tmp_path / "boot/vmlinuz-6.1").touch()
    whole = image.recipe("debian13-arm64")
    grub.prepare("i", whole, tmp_path, tmp_path / "log")
    written = (tmp_path / "boot/grub/grub.cfg").read_text(encoding="utf-8")
    assert written.startswith("linux /boot/vmlinuz-6.1 root=UUID=") and "serial" not in written
    assert grub.front("i", whole, tmp_path, tmp_path / "log") == b""


def test_partition_entry():
    entry = disk.dos_entry(0xEF, 2048, 1000)
    assert len(entry) == 16 and struct.unpack("<II", entry[8:]) == (2048, 1000) and (entry[0], entry[4]) == (0x80, 0xEF)


def test_a_guid_partition_table():
    """Read by its definition: UEFI 2.10, chapter 5.3."""
    sectors = 1 << 16
    parts = [disk.Partition("esp", 2048, 4095), disk.Partition("root", 4096, sectors - 2049)]
    start, end = disk.gpt(sectors, parts)
    assert (len(start), len(end)) == (34 * 512, 33 * 512)
    assert start[510:512] == b"\x55\xaa" and start[446 + 4] == 0xEE
    for header, table, here, other in (
        (start[512:1024], start[1024:], 1, sectors - 1),
        (end[-512:], end[:-512], sectors - 1, 1),
    ):
        signature, revision, size, crc, _zero, at, backup, first, last = struct.unpack("<8sIIIIQQQQ", header[:56])
        entries, count, length, table_crc = struct.unpack("<QIII", header[72:92])
        assert (signature, revision, size, at, backup) == (b"EFI PART", 0x10000, 92, here, other)
        assert (first, last) == (34, sectors - 34) and (count, length) == (128, 128)
        assert entries == (2 if here == 1 else sectors - 33)
        assert zlib.crc32(header[:16] + bytes(4) + header[20:92]) == crc and zlib.crc32(table) == table_crc
        kinds = [uuid.UUID(bytes_le=table[place : place + 16]) for place in (0, 128)]
        assert [str(kind) for kind in kinds] == [disk.TYPES["esp"], disk.TYPES["root"]]
        assert struct.unpack("<QQ", table[128 + 32 : 128 + 48]) == (4096, sectors - 2049)
    assert start[1024:] == end[:-512]


@pytest.fixture(name="tree")
def unpacked_tree(tmp_path):
    """What the packages of an image that systemd-boot boots have put there."""
    root = tmp_path / "root"
    for path in ("boot/vmlinuz-6.12.1", "boot/vmlinuz-6.12.2", *set(systemd_boot.FILES.values())):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("program", encoding="utf-8")
    (root / "etc/kernel").mkdir(parents=True)
    return root


@pytest.mark.parametrize(("name", "stays"), [("debian13-systemd-boot", False), ("debian13-unified", True)])
def test_kernel_install_sees_the_images_own_command_line(tree, monkeypatch, name, stays):
    whole, seen = image.recipe(name), []
    line = tree / "etc/kernel/cmdline"
    if stays:
        line.write_text("of the recipe", encoding="utf-8")

    def installing(what, command, log):
        seen.append((command[-1], line.read_text(encoding="utf-8")))
        (tree / f"boot/efi/loader/entries/id-{command[-1]}.conf").touch()

    monkeypatch.setattr(systemd_boot, "run_logged", installing)
    systemd_boot.prepare("i", whole, tree, tree / "log")
    expected = "of the recipe" if stays else f"root=UUID={disk.ROOT_UUID} ro {whole['cmdline']}\n"
    assert seen == [("6.12.1", expected), ("6.12.2", expected)] and line.exists() == stays
    assert (tree / "boot/efi/EFI/BOOT/BOOTX64.EFI").read_text(encoding="utf-8") == "program"
    assert (tree / "boot/efi/loader/entries.srel").read_text(encoding="utf-8") == "type1\n"


def test_an_entry_with_paths_of_the_builds_directory_is_told(tree, monkeypatch):
    def installing(what, command, log):
        entry = tree / f"boot/efi/loader/entries/id-{command[-1]}.conf"
        entry.write_text("title Debian\nlinux      /boot/efi/id/linux\n", encoding="utf-8")

    monkeypatch.setattr(systemd_boot, "run_logged", installing)
    with pytest.raises(RigError, match="would not find") as caught:
        systemd_boot.prepare("i", image.recipe("debian13-systemd-boot"), tree, tree / "log")
    assert caught.value.evidence == "linux      /boot/efi/id/linux"


def test_a_kernel_install_that_makes_nothing_is_told(tree, monkeypatch):
    monkeypatch.setattr(systemd_boot, "run_logged", lambda what, command, log: None)
    with pytest.raises(RigError, match="nothing to boot"):
        systemd_boot.prepare("i", image.recipe("debian13-systemd-boot"), tree, tree / "log")
    with pytest.raises(RigError, match="cannot be booted"):
        systemd_boot.prepare("i", image.recipe("debian13-arm64"), tree, tree / "log")


def test_modules_of_an_initramfs_are_loaded_in_order_and_once():
    listed = (
        "builtin virtio\ninsmod /r/lib/virtio_ring.ko.xz\ninsmod /r/lib/virtio_pci.ko.xz \n"
        "insmod /r/lib/virtio_ring.ko.xz\ninsmod /r/lib/virtio_blk.ko opt=1\n"
    )
    assert initramfs.order(listed) == ["/r/lib/virtio_ring.ko.xz", "/r/lib/virtio_pci.ko.xz", "/r/lib/virtio_blk.ko"]
    assert f"devices/{initramfs.ROOT_DISK}/virtio" in initramfs.INIT
    assert any(arg.startswith("virtio-blk-pci,drive=root") and "addr=03.0" in arg for arg in line(MACHINES[0]))


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


def test_a_failing_command_shows_the_end_of_its_log(tmp_path):
    with pytest.raises(RigError) as caught:
        common.run_logged("trying", ["sh", "-c", "echo nearly; exit 3"], tmp_path / "log")
    assert "exit code 3" in caught.value.cause and caught.value.evidence == "nearly"


def test_tail_drops_console_control(tmp_path):
    (tmp_path / "log").write_bytes(b"\x1b[2J\x1b[01;01HSeaBIOS\r\n\r\nlogin: \x07\n")
    assert common.tail(tmp_path / "log") == "SeaBIOS\nlogin: "


def test_the_cache_must_be_writable(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("NOIOMMU_CACHE", str(tmp_path / "file/below"))
    with pytest.raises(RigError, match="cache directory") as caught:
        common.cache_dir()
    assert "NOIOMMU_CACHE" in caught.value.remedy
