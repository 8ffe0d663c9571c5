# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The source of a kernel module, sent to hosts that lack it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.baremetal.noiommu.plugins.module_utils._dkms.source import digest, read_source, unpack
from ansible_collections.baremetal.noiommu.tests.unit.support.dkms_action import Action

pytestmark = pytest.mark.usefixtures("no_base")


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


def test_a_build_is_announced(source: str, capsys: pytest.CaptureFixture[str]) -> None:
    answers = [{"changed": True, "source_needed": False, "to_build": ["6.1.0-56-amd64"]}, {"changed": True}]
    action = Action({"source": source}, answers)
    result = action.run(task_vars={"inventory_hostname": "alpha"})
    assert result == {"changed": True, "source_sent": False, "build_seconds": 1}
    assert [call.get("announced") for call in action.calls] == [None, True] and action.sent == []
    said = capsys.readouterr().out
    assert said == "alpha builds the kernel module for 6.1.0-56-amd64, and is waited for.\n"


@pytest.mark.parametrize("kmod_result, said", [({"build_seconds": 95}, " It took canary 95 s."), (None, ""), ({}, "")])
def test_how_long_it_took_elsewhere_is_said(
    source: str, capsys: pytest.CaptureFixture[str], kmod_result: Any, said: str
) -> None:
    answers = [{"changed": True, "source_needed": True, "to_build": ["6.1.0-56-amd64"]}, {"changed": True}]
    known = {"alpha": {}, "canary": {"kmod_result": kmod_result}}
    names = {"ansible_play_hosts_all": list(known), "hostvars": SimpleNamespace(raw_get=known.get)}
    Action({"source": source}, answers).run(task_vars=names)
    assert capsys.readouterr().out.endswith("is waited for.%s\n" % said)


def test_a_host_does_not_choose_what_is_said(source: str, capsys: pytest.CaptureFixture[str]) -> None:
    answers = [{"changed": True, "source_needed": True, "to_build": ["6.1.0; all is well"]}]
    assert Action({"source": source}, answers).run()["refusals"][0]["code"] == "kernel_release"
    assert capsys.readouterr().out == ""


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


@pytest.mark.parametrize(
    "key", ["digest", "archive", "available", "archive_files", "destination", "unbuilt", "announced"]
)
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
