# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run a module of this collection as Ansible would, and check the host's answer.

Each module has an action plugin of its name, which is this one. With one for all and routes to it in meta/runtime.yml,
Ansible would load it anew for each task of each host (35 ms of CPU), or mix up the modules' module_defaults.
"""

from __future__ import annotations

from typing import Any

from ansible.plugins.action.normal import ActionModule
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.plugin_utils import answers, settings


class HostModule(ActionModule):
    """Fails a host whose answer would affect the controller or another host; with async, only before it is asked."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module."""
        variables = task_vars or {}
        try:
            settings.require_no_override(variables)
            result = answers.require_harmless(super().run(tmp, task_vars))
            # The only part of an answer that affects another host: the kernels that a build host builds for.
            if answers.require_releases(result.get("prebuilt_kernels", []), "prebuilt_kernels"):
                for problem in settings.unknown_build_host(variables):
                    raise problem
        except HostError as exc:
            return {"failed": True, **exc.as_failure()}
        return result
