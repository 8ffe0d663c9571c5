# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later


from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail

from ansible_collections.baremetal.noiommu.plugins.action.dkms_module import ActionModule
from ansible_collections.baremetal.noiommu.plugins.module_utils._dkms_source import digest, read_source, unpack


class Action(ActionModule):
    """The plugin with a host that answers what a test wants."""

    def __init__(self, args: dict[str, Any], answers: list[dict[str, Any]], check_mode: bool = False) -> None:
        self._task = SimpleNamespace(args=args, check_mode=check_mode, async_val=0)
        shell = SimpleNamespace(tmpdir=None, join_path=os.path.join)
        self._connection = SimpleNamespace(_shell=shell)
        self._loader = SimpleNamespace(path_dwim=os.path.abspath)
        self.answers = answers
        self.calls: list[dict[str, Any]] = []
        self.sent: list[bytes] = []

    def _execute_module(self, module_name: str, module_args: dict[str, Any], task_vars: Any) -> dict[str, Any]:
        assert module_name == "baremetal.noiommu.dkms_module"
        self.calls.append(dict(module_args))
        return dict(self.answers[len(self.calls) - 1])

    def _make_tmp_path(self, remote_user: str | None = None) -> str:
        self._connection._shell.tmpdir = "/remote/tmp"
        return "/remote/tmp"

    def _transfer_file(self, local_path: str, remote_path: str) -> str:
        assert remote_path == "/remote/tmp/source.tar.gz"
        self.sent.append(Path(local_path).read_bytes())
        return remote_path

    def _fixup_perms2(self, paths: Any, *_args: Any, **_options: Any) -> None:
        assert paths == ("/remote/tmp", "/remote/tmp/source.tar.gz")


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
    assert action.calls[1]["archive"] == "/remote/tmp/source.tar.gz"


def test_check_mode_sends_nothing(source: str) -> None:
    action = Action({"source": source}, [{"changed": True, "source_needed": True}], check_mode=True)
    assert action.run() == {"changed": True, "source_sent": True}
    assert len(action.calls) == 1 and action.sent == []


def test_a_failure_ends_it(source: str) -> None:
    action = Action({"source": source}, [{"failed": True, "msg": "no headers"}])
    assert action.run() == {"failed": True, "msg": "no headers"}
    assert action.sent == []


def test_absent_takes_the_name_from_the_source(source: str) -> None:
    action = Action({"source": source, "state": "absent"}, [{"changed": True}])
    assert action.run() == {"changed": True}
    assert action.calls[0]["name"] == "noiommu" and "digest" not in action.calls[0]


def test_absent_needs_no_source(source: str) -> None:
    action = Action({"name": "noiommu", "state": "absent"}, [{"changed": True}])
    action.run()
    assert action.calls == [{"name": "noiommu", "state": "absent"}]


def test_present_needs_a_source() -> None:
    with pytest.raises(AnsibleActionFail, match="source is required"):
        Action({"name": "noiommu"}, []).run()


@pytest.mark.parametrize("key", ["digest", "archive"])
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
