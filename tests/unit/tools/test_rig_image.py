# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""Images: recipes and what they make anew, what boots them, partitions, the order of modules."""

from __future__ import annotations

import struct
import sys
import uuid
import zlib

import pytest
from ansible_collections.baremetal.noiommu.tests.unit.support.rig_machines import (
    MACHINES,
    line,
)
from rig import cli, deps, disk, grub, image, initramfs, systemd_boot
from rig.common import RigError


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
