# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later


from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Iterator
from unittest.mock import Mock

import pytest
from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible_collections.baremetal.noiommu.plugins.action.dkms_module import ActionModule
from ansible_collections.baremetal.noiommu.plugins.module_utils._dkms import archive as archives
from ansible_collections.baremetal.noiommu.plugins.module_utils._dkms.source import digest, read_source, unpack


class Action(ActionModule):
    """The plugin with a host that answers what a test wants."""

    def __init__(self, args: dict[str, Any], answers: list[dict[str, Any]], check_mode: bool = False) -> None:
        self._task = SimpleNamespace(args=args, check_mode=check_mode, async_val=0)
        shell = SimpleNamespace(tmpdir=None, join_path=os.path.join)
        self._connection = SimpleNamespace(_shell=shell, fetch_file=self._fetch_file)
        self.remote: Path | None = None  # stands for the temporary directory on the host
        self.fetched: list[str] = []
        self._loader = SimpleNamespace(path_dwim=os.path.abspath)
        self.answers = answers
        self.calls: list[dict[str, Any]] = []
        self.not_installable: dict[str, str] = {}
        self.packages: list[str] = []
        self.refreshed_for: list[str] = []
        self.lists_missing = False
        self.sent: list[bytes] = []
        self.sent_to: list[str] = []

    def _execute_module(self, module_name: str, module_args: dict[str, Any], task_vars: Any) -> dict[str, Any]:
        assert module_name == "baremetal.noiommu.dkms_module"
        self.calls.append(dict(module_args))
        return dict(self.answers[len(self.calls) - 1])

    def _fetch_file(self, remote: str, local: str) -> None:
        assert self.remote is not None and os.path.dirname(remote) == "/remote/tmp"
        self.fetched.append(os.path.basename(remote))
        shutil.copy(self.remote / os.path.basename(remote), local)

    def _try_package(self, args: dict[str, Any]) -> str | None:
        name = args["name"]
        self.packages += [name] if "update_cache" not in args else []
        self.refreshed_for += [name] if "update_cache" in args else []
        return "no lists yet" if self.lists_missing and not self.refreshed_for else self.not_installable.get(name)

    def _make_tmp_path(self, remote_user: str | None = None) -> str:
        self._connection._shell.tmpdir = "/remote/tmp"
        return "/remote/tmp"

    def _transfer_file(self, local_path: str, remote_path: str) -> str:
        self.sent.append(Path(local_path).read_bytes())
        self.sent_to.append(remote_path)
        return remote_path

    def _fixup_perms2(self, paths: Any, *_args: Any, **_options: Any) -> None:
        assert paths == ("/remote/tmp", self.sent_to[-1])


@pytest.fixture(autouse=True)
def no_base(monkeypatch: pytest.MonkeyPatch) -> None:
    """The base class wants a whole running Ansible."""
    monkeypatch.setattr("ansible.plugins.action.ActionBase.run", lambda self, tmp, task_vars: {})


@pytest.fixture
def source(tmp_path: Path) -> str:
    (tmp_path / "dkms.conf").write_text('PACKAGE_NAME="noiommu"\nPACKAGE_VERSION="1.0.0"\n')
    (tmp_path / "a.c").write_text("int a;")
    return str(tmp_path)


def test_a_converged_host_is_asked_once(source: str) -> None:
    action = Action({"source": source}, [{"changed": False, "source_needed": False}])
    assert action.run() == {"changed": False, "source_sent": False}
    assert action.sent == []
    assert action.calls == [
        {"source": source, "name": "noiommu", "version": "1.0.0", "digest": digest(read_source(source))}
    ]


def test_the_source_is_sent_where_it_is_needed(source: str) -> None:
    action = Action(
        {"source": source}, [{"changed": True, "source_needed": True}, {"changed": True, "source_needed": True}]
    )
    assert action.run() == {"changed": True, "source_sent": True}
    assert unpack(action.sent[0]) == read_source(source)
    assert action.calls[1]["archive"] == action.sent_to[0] == "/remote/tmp/source.tar.gz"


def test_check_mode_sends_nothing(source: str) -> None:
    action = Action({"source": source}, [{"changed": True, "source_needed": True}], check_mode=True)
    assert action.run() == {"changed": True, "source_sent": True}
    assert len(action.calls) == 1 and action.sent == []


def test_a_failure_ends_it(source: str) -> None:
    action = Action({"source": source}, [{"failed": True, "msg": "no headers"}])
    assert action.run() == {"failed": True, "msg": "no headers"}
    assert action.sent == []


@pytest.mark.parametrize("build", ["on_host", "prebuilt"])
def test_absent_takes_the_name_from_the_source(source: str, build: str) -> None:
    action = Action({"source": source, "state": "absent", "build": build}, [{"changed": True}])
    assert action.run() == {"changed": True}
    assert action.calls[0]["name"] == "noiommu" and "digest" not in action.calls[0]


def test_absent_needs_no_source(source: str) -> None:
    action = Action({"name": "noiommu", "state": "absent"}, [{"changed": True}])
    action.run()
    assert action.calls == [{"name": "noiommu", "state": "absent"}]


def test_present_needs_a_source() -> None:
    with pytest.raises(AnsibleActionFail, match="source is required"):
        Action({"name": "noiommu"}, []).run()


@pytest.mark.parametrize("key", ["digest", "archive", "available", "archive_files", "destination", "unbuilt"])
def test_what_the_plugin_sets_cannot_be_given(source: str, key: str) -> None:
    with pytest.raises(AnsibleActionFail, match=key):
        Action({"source": source, key: "x"}, []).run()


@pytest.mark.parametrize("args", [{"source": "/nonexistent"}, {"source": "/proc/self/task"}])
def test_a_source_that_is_none(args: dict[str, Any]) -> None:
    result = Action(args, []).run()
    assert result["failed"] and result["refusals"][0]["code"] == "source"


def test_a_version_that_the_source_has_not(source: str) -> None:
    result = Action({"source": source, "version": "2.0.0"}, []).run()
    assert result["failed"] and "declared: 2.0.0" in result["msg"]


# --- archives ---

K1, K2 = "6.1.0-56-amd64", "6.12.0-1-amd64"


def name_of(source: str, kernel: str) -> str:
    return archives.file_name("noiommu", "1.0.0", digest(read_source(source)), kernel, "x86_64")


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


@pytest.fixture
def remote(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("remote")


@pytest.fixture
def kept(tmp_path_factory: pytest.TempPathFactory, source: str) -> str:
    """A directory with an archive for the first kernel."""
    directory = str(tmp_path_factory.mktemp("kept"))
    archives.store(directory, name_of(source, K1), b"content")
    return directory


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


# --- signatures: by the real gpg ---


@pytest.fixture(scope="module")
def gnupg(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home of GnuPG with one key, and that key in keys.gpg."""
    home = Path(tempfile.mkdtemp(prefix="gpg"))  # a short path: there is a socket in it
    gpg(home, "--pinentry-mode", "loopback", "--passphrase", "", "--quick-gen-key", "builder", "ed25519", "sign")
    (home / "keys.gpg").write_bytes(gpg(home, "--export"))
    yield home
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False)
    shutil.rmtree(home, ignore_errors=True)


def gpg(home: Path, *options: str) -> bytes:
    command = ["gpg", "--homedir", str(home), "--batch", "--quiet", *options]
    return subprocess.run(command, check=True, capture_output=True).stdout


class Keyring:
    """Runs of the action with a keyring and one archive, signed."""

    def __init__(self, source: str, kept: str, gnupg: Path) -> None:
        self.path = Path(kept, name_of(source, K1))
        gpg(gnupg, "--detach-sign", str(self.path))
        args = {"source": source, "build": "prebuilt", "archives": kept, "archive_keyring": str(gnupg / "keys.gpg")}
        self.action = Action(args, [{"changed": True, "archives_needed": [K1]}, {"changed": True}])

    def refused(self) -> str:
        result = self.action.run()
        assert result["refusals"][0]["code"] == "archive_signature" and self.action.sent == []
        return result["refusals"][0]["evidence"][0]

    def replace(self, content: bytes) -> None:
        """Put another archive in its place, with its checksum."""
        self.path.write_bytes(content)
        Path(str(self.path) + ".sha256").write_text(archives.sha256(content))


@pytest.fixture
def keyring(source: str, kept: str, gnupg: Path) -> Keyring:
    return Keyring(source, kept, gnupg)


def test_what_a_key_of_the_keyring_signed_is_sent(keyring: Keyring) -> None:
    assert keyring.action.run()["changed"] and keyring.action.sent == [b"content"]


def test_what_nobody_signed_is_not_sent(keyring: Keyring) -> None:
    keyring.replace(b"evil")
    assert "BAD signature" in keyring.refused()


def test_without_a_signature_nothing_is_sent(keyring: Keyring) -> None:
    Path(str(keyring.path) + ".sig").unlink()
    assert "no %s.sig or .asc" % keyring.path in keyring.refused()


def test_without_gpgv_nothing_is_sent(keyring: Keyring, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert "gpgv" in keyring.refused()


@pytest.mark.parametrize("first, during", [(b"evil", b"content"), (b"content", b"evil")])
def test_the_bytes_that_are_sent_are_those_that_were_verified(
    keyring: Keyring, monkeypatch: pytest.MonkeyPatch, first: bytes, during: bytes
) -> None:
    """Somebody who can write there exchanges the archive while gpgv runs, and back afterwards."""
    run = subprocess.run

    def race(*argv: Any, check: bool = False, **options: Any) -> Any:
        keyring.replace(during)
        try:
            return run(*argv, check=check, **options)
        finally:
            keyring.replace(first)

    keyring.replace(first)
    monkeypatch.setattr(subprocess, "run", race)
    if first == b"evil":
        keyring.refused()
    else:
        assert keyring.action.run()["changed"] and keyring.action.sent == [b"content"]
