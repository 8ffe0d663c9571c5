# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Build hosts that lie: each gets a refusal, which those are told that need it, and nothing of it is kept."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._dkms import archive as archives
from ansible_collections.baremetal.noiommu.plugins.module_utils._dkms.source import digest, read_conf, read_source
from ansible_collections.baremetal.noiommu.tests.hostile.test_answers import CRASHES, info
from ansible_collections.baremetal.noiommu.tests.unit.playbooks.fleet import Answers, Fleet, Played

OTHER = "6.1.0-55-amd64"
KMOD = Path(__file__).resolve().parents[2] / "kmod"
SOURCE = read_source(str(KMOD))
CONF = read_conf(SOURCE, "kmod")
_ABOUT = (CONF.name, CONF.version, digest(SOURCE), OTHER, "x86_64")
HONEST = archives.Archive(*_ABOUT, {CONF.name + ".ko": b"a module"}, SOURCE["dkms.conf"], None)


class Lie(NamedTuple):
    """What is answered when asked what is needed, and to the build; and the archive that is left to be fetched."""

    asked: dict[str, Any] = {}
    built: dict[str, Any] = {}
    archive: Any = b""


def escaping(archive: archives.Archive) -> bytes:
    """Return an archive whose member leads out of it."""
    plain = io.BytesIO(gzip.decompress(archives.pack(archive)))
    more = io.BytesIO()
    with tarfile.open(fileobj=plain) as old, tarfile.open(fileobj=more, mode="w") as new:
        for member in old:
            content = old.extractfile(member)
            member.name = member.name.replace(CONF.name + ".ko", "../../../../../etc/evil.ko")
            new.addfile(member, content)
    return gzip.compress(more.getvalue())


# Of each, what the needy are told. An archive is made for the kernel that is asked for.
LIES: dict[str, tuple[str, Lie]] = {
    "another-kernel": ("archive of something else", Lie(archive=lambda one: archives.pack(one._replace(kernel=OTHER)))),
    "another-source": ("archive of something else", Lie(archive=lambda one: archives.pack(one._replace(digest="0")))),
    "another-module": ("evil", Lie(archive=lambda one: archives.pack(one._replace(modules={"evil.ko": b""})))),
    "another-sum": ("sum", Lie(built={"made": {"KERNEL": "0" * 64}}, archive=archives.pack)),
    "escaping-member": ("Evidence", Lie(archive=escaping)),
    "not-asked-for": ("not asked for", Lie(built={"made": {OTHER: "0" * 64}})),
    "escaping-kernel": ("not asked for", Lie(built={"made": {"../../../x": "0" * 64}})),
    "garbage": ("not one that this collection made", Lie(archive=lambda one: b"garbage")),
    "bomb": ("more than 64 MiB", Lie(archive=lambda one: gzip.compress(bytes(65 << 20), 1))),
    "made-is-text": ("not asked for", Lie(built={"made": "../x"})),
    "made-is-a-number": ("not asked for", Lie(built={"made": 7})),
    "failed-is-a-list": ("failed_kernels is not a table", Lie(built={"failed_kernels": ["KERNEL"]})),
    "failed-is-text": ("failed_kernels is not a table", Lie(built={"failed_kernels": "x"})),
    "failed-escapes": ("not a kernel release", Lie(built={"failed_kernels": {"../../x": ["x"]}})),
    "packages-are-a-number": ("packages_missing is not a list", Lie(asked={"packages_missing": 7})),
    "packages-are-tables": ("packages_missing is not a list", Lie(asked={"packages_missing": [{"x": []}]})),
    "packages-are-many": ("packages_missing has too many", Lie(asked={"packages_missing": ["x"] * 1000})),
    "facts": ("ansible_facts", Lie(built={"ansible_facts": {"noiommu_report_dir": "/nowhere"}})),
}
NEEDED = {name: "6.1.0-%d-amd64" % number for number, name in enumerate(LIES)}


def answers(path: Path, name: str) -> Answers:
    """The answers of one of them, which leaves its archive where it is to be fetched."""
    kernel, (_told, lie) = NEEDED[name], LIES[name]
    content = lie.archive(HONEST._replace(kernel=kernel)) if lie.archive else b""
    left = path / (name + ".left")
    left.write_bytes(content)
    result: dict[str, Any] = {"changed": True, "failed_kernels": {}, "packages_missing": [], "source_needed": True}
    built = json.loads(json.dumps({"made": {kernel: archives.sha256(content)}, **lie.built}).replace("KERNEL", kernel))
    copies = {archives.remote_name(kernel): str(left)} if content else {}
    return {
        "setup": [("", {"ansible_facts": {"ansible_pkg_mgr": "command", "noiommu_report_dir": "/nowhere"}})],
        "dkms_module": [('"archive": ', {**result, **built, "_copies": copies}), ("", {**result, **lie.asked})],
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("builders")


@pytest.fixture(scope="module")
def deployed(place: Path) -> Played:
    fleet = Fleet(place)
    for name in LIES:
        said = {
            "noiommu_info": [("", info(prebuilt_kernels=[NEEDED[name]]))],
            "dkms_module": [("", {"failed": True, "msg": "archive_missing"})],
        }
        fleet.add("needs-" + name, said, noiommu_kmod_build_host=name)
        fleet.add(name, answers(place, name), group=False)
    return fleet.play(
        "deploy",
        noiommu_kmod_build="prebuilt",
        noiommu_accept_unsafe=True,
        noiommu_kmod_archives=str(place / "archives"),
    )


@pytest.mark.parametrize("name", LIES)
def test_the_refusal_is_told_to_who_needs_the_module(deployed: Played, name: str) -> None:
    asked = [line for line in deployed.asked["needs-" + name] if line.startswith("dkms_module")]
    assert len(asked) == 1, deployed.text
    told = json.loads(asked[0].partition(" ")[2])["unbuilt"][NEEDED[name]]
    assert told[0].startswith(name + ": ") and LIES[name][0] in told[0]


def test_nothing_is_kept(deployed: Played, place: Path) -> None:
    kept = [path.name for path in (place / "archives").glob("*")] if (place / "archives").exists() else []
    assert kept == [] and not [crash for crash in CRASHES if crash in deployed.text], deployed.text
