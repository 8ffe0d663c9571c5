# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Send a kernel module's source to the host, but only where the host has another one."""

from __future__ import annotations

import os
import tempfile
from typing import Any

from ansible import constants as C
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.baremetal.noiommu.plugins.module_utils._dkms_source import (
    Source,
    digest,
    pack,
    read_conf,
    read_source,
)
from ansible_collections.baremetal.noiommu.plugins.module_utils._errors import HostError

_MODULE = "baremetal.noiommu.dkms_module"


class ActionModule(ActionBase):
    """Asks the host with the digest alone, and sends the source if the answer is that it is needed."""

    TRANSFERS_FILES = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module, twice if the source has to be sent."""
        super().run(tmp, task_vars)
        args = dict(self._task.args)
        try:
            source = self._describe(args)
        except HostError as exc:
            return {"failed": True, "msg": str(exc), "refusals": [exc.as_dict()]}
        result = self._execute_module(module_name=_MODULE, module_args=args, task_vars=task_vars)
        needed = bool(result.pop("source_needed", False))
        if result.get("failed") or args.get("state", "present") != "present":
            return result
        if needed and source is not None and not self._task.check_mode:
            args["archive"] = self._send(pack(source))
            result = self._execute_module(module_name=_MODULE, module_args=args, task_vars=task_vars)
            result.pop("source_needed", None)
        if not result.get("failed"):
            result["source_sent"] = needed
        return result

    def _describe(self, args: dict[str, Any]) -> Source | None:
        """Fill in what the source on the controller says of itself."""
        for key in ("digest", "archive"):
            if key in args:
                raise AnsibleActionFail("%s is set by the action plugin; leave it out." % key)
        given = args.get("source")
        present = args.get("state", "present") == "present"
        if given is None:
            if present:
                raise AnsibleActionFail("source is required with state=present: give the directory with dkms.conf.")
            return None
        if not present and args.get("name"):
            return None
        directory = self._loader.path_dwim(os.path.expanduser(str(given)))
        if not os.path.isdir(directory):
            raise HostError(
                "source",
                "There is no source directory %s on the controller." % directory,
                evidence=["source: %s" % given],
                remedy="Give the directory that holds dkms.conf.",
            )
        source = read_source(directory)
        conf = read_conf(source, directory)
        for key, value in conf._asdict().items():
            if args.setdefault(key, value) != value and present:
                raise HostError(
                    "source",
                    "The source is not the declared %s." % key,
                    evidence=["%s/dkms.conf: %s, declared: %s" % (directory, value, args[key])],
                    remedy="Leave %s out, or give the right source." % key,
                )
        if present:
            args["digest"] = digest(source)
        return source

    def _send(self, packed: bytes) -> str:
        """Put the archive into the task's temporary directory on the host; Ansible removes that afterwards."""
        if self._connection._shell.tmpdir is None:
            self._make_tmp_path()
        remote = self._connection._shell.join_path(self._connection._shell.tmpdir, "source.tar.gz")
        with tempfile.NamedTemporaryFile(dir=C.DEFAULT_LOCAL_TMP, suffix=".tar.gz") as local:
            local.write(packed)
            local.flush()
            self._transfer_file(local.name, remote)
        self._fixup_perms2((self._connection._shell.tmpdir, remote))
        return remote
