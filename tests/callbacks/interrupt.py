# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lets something happen to the control node in the middle of a run."""

from __future__ import annotations

DOCUMENTATION = """
name: interrupt
type: aggregate
author: baremetal.noiommu contributors (@baremetal-noiommu)
short_description: Kills Ansible, or runs a command, when a task starts
description:
  - For the collection's own tests. C($NOIOMMU_INTERRUPT_AT) is the name of the task,
    C($NOIOMMU_INTERRUPT_BY) a command that is run then; without one, Ansible gets SIGKILL.
"""

import os
import shlex
import signal
import subprocess

from ansible.plugins.callback import CallbackBase


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "interrupt"
    CALLBACK_NEEDS_ENABLED = True

    def v2_runner_on_start(self, host, task):
        if task.get_name() != os.environ.get("NOIOMMU_INTERRUPT_AT"):
            return
        command = os.environ.get("NOIOMMU_INTERRUPT_BY")
        if command:
            subprocess.run(shlex.split(command), check=True)
        else:
            os.kill(os.getpid(), signal.SIGKILL)
