# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The action plugin without a connection."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ansible_collections.baremetal.noiommu.plugins.action.dkms_module import ActionModule
from ansible_collections.baremetal.noiommu.plugins.module_utils._dkms import archive as archives
from ansible_collections.baremetal.noiommu.plugins.module_utils._dkms.source import digest, read_source


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


# --- archives ---

K1, K2 = "6.1.0-56-amd64", "6.12.0-1-amd64"


def name_of(source: str, kernel: str) -> str:
    return archives.file_name("noiommu", "1.0.0", digest(read_source(source)), kernel, "x86_64")
