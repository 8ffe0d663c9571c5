# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Archives of a build host, fetched and sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible_collections.baremetal.noiommu.plugins.module_utils._dkms import archive as archives
from ansible_collections.baremetal.noiommu.plugins.module_utils._dkms.source import digest, read_source
from ansible_collections.baremetal.noiommu.tests.unit.support.dkms_action import K1, K2, Action, name_of

pytestmark = pytest.mark.usefixtures("no_base")


def archive_for(source: str, asked: str, **other: Any) -> bytes:
    modules = {"noiommu.ko": asked.encode()}
    archive = archives.Archive("noiommu", "1.0.0", digest(read_source(source)), asked, "x86_64", modules, b"conf", None)
    return archives.pack(archive._replace(**other))


def built(source: str, remote: Path, *kernels: str, **other: Any) -> dict[str, Any]:
    """What a build host answers after it has built for these kernels."""
    made = {}
    for kernel in kernels:
        content = archive_for(source, kernel, **other)
        (remote / archives.remote_name(kernel)).write_bytes(content)
        made[kernel] = archives.sha256(content)
    return {"changed": True, "made": made, "failed_kernels": {}, "source_needed": True}


# What it answers before it gets the source.
PROBED: dict[str, Any] = {"changed": True, "made": {}, "failed_kernels": {}, "packages_missing": []}


def archive_args(source: str, directory: Any, *kernels: str) -> dict[str, Any]:
    return {"source": source, "state": "archived", "archives": str(directory), "kernels": list(kernels)}


def test_many_hosts_and_two_kernels_are_two_builds(source: str, remote: Path, tmp_path: Path) -> None:
    builds = 0
    for kernels in ([K1], [K1], [K1, K2], [K2], [K1, K2]):  # five hosts, one after the other
        answer = [PROBED, built(source, remote, K2 if K2 in kernels else K1)]
        action = Action(archive_args(source, tmp_path / "kept", *kernels), answer)
        action.remote = remote
        result = action.run()
        asked = [kernel for call in action.calls[1:] for kernel in call["kernels"]]
        builds += len(asked)
        assert result["changed"] is bool(asked) and list(result["archived"]) == asked
        assert all(Path(path).is_file() for path in result["archived"].values())
    assert builds == 2


def test_check_mode_builds_nothing(source: str, tmp_path: Path) -> None:
    action = Action(archive_args(source, tmp_path, K1), [PROBED], check_mode=True)
    assert action.run()["changed"] and action.sent == [] and action.calls[0]["kernels"] == [K1]


def test_a_failing_build_host(source: str, tmp_path: Path) -> None:
    action = Action(archive_args(source, tmp_path, K1), [{"failed": True, "msg": "no compiler"}])
    assert action.run() == {"failed": True, "msg": "no compiler", "failed_kernels": {K1: ["no compiler"]}}


def test_a_build_host_that_cannot_be_reached(source: str, tmp_path: Path) -> None:
    action = Action(archive_args(source, tmp_path, K1), [])
    action._execute_module = Mock(side_effect=AnsibleConnectionFailure("no route"))
    result = action.run()
    assert result["failed"] and "no route" in result["failed_kernels"][K1][0]


H1, H2 = "linux-headers-" + K1, "linux-headers-" + K2


def test_what_cannot_be_installed_is_told_to_those_who_need_it(source: str, remote: Path, tmp_path: Path) -> None:
    probed = {**PROBED, "packages_missing": ["gcc", H1, H2]}
    answer = {**built(source, remote, K2), "failed_kernels": {K1: ["%s is not installed on the build host" % H1]}}
    action = Action(archive_args(source, tmp_path / "kept", K1, K2), [probed, answer])
    action.remote = remote
    action.not_installable = {H1: "no such package", "make": "never asked for"}
    result = action.run()
    assert action.packages == ["gcc", H1, H2] and list(result["archived"]) == [K2] and not result.get("failed")
    assert result["failed_kernels"] == {
        K1: ["%s is not installed on the build host" % H1, "%s could not be installed: no such package" % H1]
    }
    wanting = Action(
        {
            "source": source,
            "build": "prebuilt",
            "archives": str(tmp_path / "kept"),
            "builds": [{**result, "item": "b"}],
        },
        [{"archives_needed": []}],
    )
    wanting.run()
    assert wanting.calls[0]["unbuilt"] == {K1: ["b: " + line for line in result["failed_kernels"][K1]]}
    assert "builds" not in wanting.calls[0]


def test_a_fresh_build_host_refreshes_its_package_lists_once(source: str, remote: Path, tmp_path: Path) -> None:
    probed = {**PROBED, "packages_missing": ["gcc", H1, H2]}
    action = Action(archive_args(source, tmp_path / "kept", K1, K2), [probed, built(source, remote, K1, K2)])
    action.remote, action.lists_missing = remote, True
    assert sorted(action.run()["archived"]) == [K1, K2] and action.refreshed_for == ["gcc"]


def test_without_a_compiler_all_kernels_are_told(source: str, tmp_path: Path) -> None:
    probed = {**PROBED, "packages_missing": ["gcc", H1]}
    action = Action(archive_args(source, tmp_path, K1, K2), [probed, {"failed": True, "msg": "needs gcc"}])
    action.not_installable = {"gcc": "broken", H1: "no such package"}
    result = action.run()
    assert result["failed_kernels"] == {
        K1: ["needs gcc", "gcc could not be installed: broken", H1 + " could not be installed: no such package"],
        K2: ["needs gcc", "gcc could not be installed: broken"],
    }


def test_check_mode_does_not_count_on_headers_that_cannot_be_had(source: str, tmp_path: Path) -> None:
    probed = {**PROBED, "packages_missing": [H1, H2], "failed_kernels": {K1: ["not installed"], K2: ["not installed"]}}
    action = Action(archive_args(source, tmp_path, K1, K2), [probed], check_mode=True)
    action.not_installable = {H1: "no such package"}
    result = action.run()
    assert list(result["archived"]) == [K2]
    assert result["failed_kernels"] == {K1: [H1 + " could not be installed: no such package"]}


def test_a_kernel_that_is_none_asks_nobody(source: str, tmp_path: Path) -> None:
    action = Action(archive_args(source, tmp_path, K1, "amd64,inetutils-telnetd"), [])
    result = action.run()
    assert result["refusals"][0]["code"] == "kernel_release" and action.calls == [] and action.packages == []


@pytest.mark.parametrize(
    "made",
    [
        {K2: "0"},
        {"../x": "0"},
        {"../.ssh/authorized_keys": "0"},
        {K1: {"path": "/tmp/.profile", "sha256": "0"}},
        {K1: None},
        [K1],
        None,
    ],
)
def test_a_build_host_that_names_other_files(source: str, remote: Path, tmp_path: Path, made: Any) -> None:
    action = Action(archive_args(source, tmp_path / "kept", K1), [PROBED, {**PROBED, "made": made}])
    result = action.run()
    assert result["refusals"][0]["code"] == "answer" and K1 in result["failed_kernels"]
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize("needed", [["6.6.6"], [K1, "../../x"], "x", None, [["x"]]])
def test_a_host_that_asks_for_what_it_was_not_offered(source: str, kept: str, needed: Any) -> None:
    action = Action({"source": source, "build": "prebuilt", "archives": kept}, [{"archives_needed": needed}])
    result = action.run()
    assert result["failed"] and result["refusals"][0]["code"] in ("answer", "kernel_release") and action.sent == []


@pytest.mark.parametrize("state", ["present", "absent", "archived"])
def test_facts_decide_nothing(source: str, state: str) -> None:
    facts = {"noiommu_kmod_build_host": "localhost", "kmod_source": "/etc", "system": "Linux"}
    action = Action({"source": source, "state": state, "archives": "/x", "kernels": [K1]}, [])
    result = action.run(task_vars={"ansible_facts": facts, **facts})
    assert result["refusals"][0]["code"] == "facts_override" and action.calls == []
    assert result["refusals"][0]["evidence"] == ["ansible_facts: kmod_source, noiommu_kmod_build_host"]


def test_an_answer_with_facts_is_refused(source: str) -> None:
    action = Action({"source": source}, [{"changed": False, "ansible_facts": {"kmod_source": "/etc"}}])
    assert action.run()["refusals"][0]["code"] == "answer"
    found = {"changed": False, "ansible_facts": {"discovered_interpreter_python": "/usr/bin/python3"}}
    assert not Action({"source": source}, [found]).run().get("failed")


def test_an_archive_damaged_on_its_way_is_not_kept(source: str, remote: Path, tmp_path: Path) -> None:
    answer = built(source, remote, K1)
    answer["made"][K1] = "0" * 64
    action = Action(archive_args(source, tmp_path / "kept", K1), [PROBED, answer])
    action.remote = remote
    assert action.run()["refusals"][0]["code"] == "archive_checksum" and not (tmp_path / "kept").exists()


@pytest.mark.parametrize(
    ("other", "code"),
    [
        ({"kernel": K2}, "answer"),
        ({"digest": "0" * 64}, "answer"),
        ({"name": "other", "modules": {"other.ko": b""}}, "answer"),
        ({"version": "9"}, "answer"),
        ({"arch": "../../x"}, "archive"),
        ({"modules": {".profile": b""}}, "archive"),
        ({"kernel": "../../.profile"}, "archive"),
        ({"kernel": ".."}, "kernel_release"),
    ],
)
def test_an_archive_of_something_else_is_not_kept(
    source: str, remote: Path, tmp_path: Path, other: dict[str, Any], code: str
) -> None:
    action = Action(archive_args(source, tmp_path / "kept", K1), [PROBED, built(source, remote, K1, **other)])
    action.remote = remote
    result = action.run()
    assert result["refusals"][0]["code"] == code and K1 in result["failed_kernels"]
    assert action.fetched == [K1 + ".dkms.tar.gz"] and not (tmp_path / "kept").exists()


def test_an_archive_that_another_builder_made_stays(source: str, remote: Path, tmp_path: Path) -> None:
    """Stored while this one was building."""
    action = Action(archive_args(source, tmp_path / "kept", K1), [PROBED, built(source, remote, K1)])
    action.remote = remote
    theirs = archive_for(source, K1, modules={"noiommu.ko": b"theirs"})
    fetch = action._connection.fetch_file

    def meanwhile(here: str, there: str) -> None:
        archives.store(str(tmp_path / "kept"), name_of(source, K1), theirs)
        fetch(here, there)

    action._connection.fetch_file = meanwhile
    assert Path(action.run()["archived"][K1]).read_bytes() == theirs


def test_a_host_gets_the_archives_that_it_asks_for(source: str, kept: str) -> None:
    answers = [{"changed": True, "archives_needed": [K1]}, {"changed": True, "archives_needed": [K1]}]
    action = Action({"source": source, "build": "prebuilt", "archives": kept}, answers)
    assert action.run() == {"changed": True, "source_sent": False}
    assert action.calls[0]["available"] == {K1: archives.sha256(b"content")}
    assert action.sent == [b"content"] and action.calls[1]["archive_files"] == {K1: action.sent_to[0]}


def test_a_converged_prebuilt_host_is_asked_once(source: str, kept: str) -> None:
    action = Action({"source": source, "build": "prebuilt", "archives": kept}, [{"archives_needed": []}])
    action.run()
    assert len(action.calls) == 1 and action.sent == []


@pytest.mark.parametrize("check", [True, False])
def test_check_mode_counts_on_what_is_still_to_be_built(source: str, kept: str, check: bool) -> None:
    builds = [{"archived": {K1: "x", K2: "x"}}, {"skipped": True}]
    args = {"source": source, "build": "prebuilt", "archives": kept, "builds": builds}
    action = Action(args, [{"archives_needed": []}], check_mode=check)
    action.run()
    known = {K1: archives.sha256(b"content")}
    assert action.calls[0]["available"] == ({**known, K2: "still to be built"} if check else known)


def test_archives_have_to_be_somewhere(source: str) -> None:
    with pytest.raises(AnsibleActionFail, match="archives is required"):
        Action({"source": source, "build": "prebuilt"}, []).run()
