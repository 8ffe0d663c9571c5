# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a hostile host gets from the real playbooks: its own failure. The others, and the controller, get nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._dkms import archive as archives
from ansible_collections.baremetal.noiommu.plugins.module_utils._dkms.source import digest, read_conf, read_source
from ansible_collections.baremetal.noiommu.tests.report import fleet as reported
from ansible_collections.baremetal.noiommu.tests.unit.playbooks.fleet import Answers, Fleet, Played

BUILDABLE, HEADLESS = "6.1.0-56-amd64", "6.6.6-amd64"
EVIL_KERNEL = "amd64,inetutils-telnetd"
KMOD = Path(__file__).resolve().parents[3] / "kmod"


def answers(kernels: list[str], **more: Any) -> Answers:
    """What a converged host says that wants the module for some kernels."""
    info = {
        **reported.answers()["preflight_info"],
        "prebuilt_kernels": kernels,
        "packages_missing": [],
        "recorded": {},
        "iommu_boot": {"recorded": False, "pending": False, "parameters": [], "without": []},
        **more,
    }
    missing = {"failed": True, "msg": "archive_missing"}
    return {
        "noiommu_info": [("", info)],
        "dkms_module": [
            (kernel, {"changed": False, "archives_needed": []}) for kernel in kernels if kernel == BUILDABLE
        ]
        + [("", missing)],
    }


def build_host(path: Path) -> Answers:
    """What a host says that builds for one kernel and does not get the headers of the other."""
    source = read_source(str(KMOD))
    conf = read_conf(source, "kmod")
    about = (conf.name, conf.version, digest(source), BUILDABLE, "x86_64")
    modules = {conf.name + ".ko": b"a module"}
    content = archives.pack(archives.Archive(*about, modules, source["dkms.conf"], None))
    made = path / archives.file_name(*about)  # what it is to be called on the controller
    made.write_bytes(content)
    result = {"changed": True, "failed_kernels": {}, "packages_missing": [], "made": {}, "source_needed": True}
    files = {archives.remote_name(BUILDABLE): str(made), ".profile": str(made)}
    built = {BUILDABLE: archives.sha256(content)}
    headers = ["linux-headers-" + kernel for kernel in (BUILDABLE, HEADLESS)]
    lacking = {HEADLESS: ["linux-headers-%s is not installed on the build host" % HEADLESS]}
    return {
        "setup": [("", {"ansible_facts": {"ansible_pkg_mgr": "apt"}})],
        "apt": [
            (HEADLESS, {"failed": True, "msg": "No package matching it is available"}),
            ("", {"changed": True, "ansible_facts": {"noiommu_report_dir": "/nowhere"}}),
        ],
        "dkms_module": [
            ('"archive": ', {**result, "made": built, "failed_kernels": lacking, "_copies": files}),
            ("", {**result, "packages_missing": ["gcc", *headers]}),
        ],
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fleet")


@pytest.fixture(scope="module")
def fleet(place: Path) -> Fleet:
    """Two honest hosts between hostile ones, the first of which is the one whose variables Ansible uses for all."""
    hosts = Fleet(place)
    settings = {
        "noiommu_kmod_build_host": "bystander",
        "noiommu_report_dir": str(place / "theirs"),
        "kmod_source": "/etc",
        "noiommu_kmod_archives": str(place / "theirs"),
        "preflight_info": {"prebuilt_kernels": [EVIL_KERNEL]},
    }
    other = {"noiommu_kmod_build_host": "liar"}
    hosts.add("cached", answers([BUILDABLE]), facts=settings)
    hosts.add("facts", answers([BUILDABLE], ansible_facts=settings))
    hosts.add("kernel", answers([BUILDABLE, EVIL_KERNEL]))
    hosts.add("honest", answers([BUILDABLE]))
    hosts.add("headless", answers([HEADLESS]))
    hosts.add("misled", answers(["6.9.9"]), **other)
    hosts.add("mistaken", answers([BUILDABLE]), noiommu_kmod_build_host="build.invalid")
    hosts.add("builder", build_host(place), group=False)
    hosts.add("liar", {"dkms_module": [("", {"changed": True, "ansible_facts": settings})]}, group=False)
    hosts.add("bystander", {}, group=False)
    return hosts


DECLARED = {"noiommu_kmod_build": "prebuilt", "noiommu_kmod_build_host": "builder", "noiommu_accept_unsafe": True}


# Each run costs seconds, so each is done once, and what is looked at of them is in many tests.


@pytest.fixture(scope="module")
def deployed(fleet: Fleet, place: Path) -> Played:
    return fleet.play("deploy", **DECLARED, noiommu_kmod_archives=str(place / "archives"))


@pytest.fixture(scope="module")
def report(fleet: Fleet, place: Path, deployed: Played) -> dict[str, dict[str, Any]]:
    """The report after the deploy, by host."""
    where = {"noiommu_kmod_archives": str(place / "archives"), "noiommu_report_dir": str(place / "report")}
    said = fleet.play("report", "cached,facts,honest", **DECLARED, **where)
    written = place / "report" / "report.json"
    assert written.exists(), said.text
    return {host["name"]: host for host in json.loads(written.read_text())["hosts"]}


@pytest.fixture(scope="module")
def verified(fleet: Fleet, place: Path, deployed: Played) -> Played:
    """As docs/examples/ansible.cfg has it: facts are no variables."""
    where = {"noiommu_kmod_archives": str(place / "archives")}
    return fleet.play("verify", "kernel,honest", inject=False, **DECLARED, **where)


@pytest.mark.parametrize(
    "name, code, said",
    [
        ("cached", "facts_override", "noiommu_kmod_build_host, noiommu_report_dir, preflight_info"),
        ("facts", "answer", "ansible_facts: kmod_source"),
        ("kernel", "kernel_release", EVIL_KERNEL),
        ("mistaken", "build_host_unknown", "build.invalid"),
    ],
)
def test_each_fails_by_itself(deployed: Played, name: str, code: str, said: str) -> None:
    words = deployed.said_of(name)
    assert "fatal: [%s]" % name in words and code in words and said in words and "remedy" in words


def test_the_report_and_verify_say_the_same(report: dict[str, dict[str, Any]], verified: Played) -> None:
    for name, code in (("cached", "facts_override"), ("facts", "answer")):
        assert report[name]["state"] == "refused" and report[name]["reason"].startswith(code)
    assert "kernel: refused: kernel_release" in verified.text


def test_the_others_go_on(deployed: Played, report: dict[str, dict[str, Any]], verified: Played) -> None:
    assert "honest: backend dkms" in deployed.said_of("honest"), deployed.text
    assert report["honest"]["state"] == "ok"
    assert "ok: [honest]" in verified.text and "fatal: [honest]" not in verified.text


def test_what_could_not_be_installed_is_told_to_the_host_that_needs_it(deployed: Played) -> None:
    asked = [line for line in deployed.asked["headless"] if line.startswith("dkms_module")]
    assert "builder: linux-headers-%s could not be installed: No package matching it" % HEADLESS in asked[0]
    assert "fatal: [headless]" in deployed.text


def test_a_build_host_that_answers_with_facts_concerns_only_those_who_need_it(deployed: Played) -> None:
    asked = [line for line in deployed.asked["misled"] if line.startswith("dkms_module")]
    assert "liar: The host's answer was not accepted" in asked[0] and "fatal: [misled]" in deployed.text


def test_packages_are_those_of_honest_kernels(deployed: Played) -> None:
    packages = [line for line in deployed.asked["builder"] if line.startswith("apt ")]
    assert len(packages) == 4 and any("linux-headers-" + BUILDABLE in line for line in packages)
    assert [HEADLESS in line for line in packages if "update_cache" in line] == [True]
    assert not any("telnetd" in line for name in ("builder", "liar") for line in deployed.asked[name])


def test_nobody_becomes_a_build_host_by_saying_so(deployed: Played, verified: Played) -> None:
    assert deployed.asked["builder"]
    assert deployed.asked["bystander"] == verified.asked["bystander"] == verified.asked["liar"] == []


def test_a_host_with_facts_of_ours_is_not_even_asked(deployed: Played) -> None:
    assert deployed.asked["cached"] == [] and len(deployed.asked["facts"]) == 1


def test_nothing_is_written_where_a_host_said(place: Path, report: Any, verified: Played) -> None:
    assert not (place / "theirs").exists() and not (place / "noiommu-report").exists()
    assert sorted(path.name for path in (place / "archives").glob("*.gz")) == [
        path.name for path in place.glob("*.dkms.tar.gz")
    ]
