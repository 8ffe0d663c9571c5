# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs a binding against a kernel that reacts, fails at any request, or is told to end at any."""

from __future__ import annotations

import re
from typing import Callable

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding.boot import Boot
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding.change import BindingChange
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding.request import Request
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.netlink import NetState
from ansible_collections.baremetal.noiommu.plugins.module_utils._policy.guard_context import GuardContext

from .fake_kernel import Machine
from .killing import Killer

NOTHING = Request([])


def binding(host: Machine, request: Request, check_mode: bool = False, net: NetState | None = None) -> BindingChange:
    """Decide, and touch nothing."""
    return BindingChange(host.kernel, GuardContext(host.root, net), request, check_mode)


def converge(host: Machine, request: Request) -> BindingChange:
    """Do what has to be done; there must be something."""
    change = binding(host, request)
    assert change.changed
    change.apply()
    return change


def use(host: Machine, address: str) -> None:
    """Have a process drive a device."""
    group = host.root.link_name(host.tree.real(address), "iommu_group")
    host.tree.file("/proc/4711/comm", "dpdk-testpmd")
    host.tree.dir("/proc/4711/fd")
    host.tree.at("/proc/4711/fd/17").symlink_to("/dev/vfio/%s" % group)


def boot(host: Machine) -> tuple[int, list[str]]:
    """Do what the boot unit does; return how many devices failed, and what it said."""
    lines: list[str] = []
    return Boot(host.kernel, GuardContext(host.root), lines.append).bind(), lines


def transitions(cases: dict[str, tuple[list[Request], Request]]) -> pytest.MarkDecorator:
    """Give a test what was there before and what is wanted, for each case."""
    return pytest.mark.parametrize("before,wanted", list(cases.values()), ids=list(cases))


def fails_everywhere(
    host: Machine, before: list[Request], request: Request, state: Callable[[Machine], object]
) -> None:
    """Fail at each request in turn; after each failure the host must be as before it.

    A request whose failure does not fail the run (the device goes another way) must still lead to what is wanted.
    """
    for earlier in before:
        converge(host, earlier)
    index = 0
    while True:
        index += 1
        pristine = state(host)
        host.requests.clear()
        host.fail_at = index
        change = binding(host, request)
        try:
            change.apply()
        except HostError as exc:
            assert exc.code != "record"
            assert state(host) == pristine, "after a failure of request %d: %s" % (index, host.requests[index - 1])
            assert not any("NOT put back" in line for line in exc.evidence)
            continue
        finally:
            host.fail_at = None
        # No failure was raised: either all requests are through, or the failed one may fail.
        if len(host.requests) < index:
            break
        assert index < 300
        if change.unreleased:
            converge(host, request)
        assert not binding(host, request).changed, "after a failure of request %d" % index
        binding(host, NOTHING).apply()
        for earlier in before:
            converge(host, earlier)
    assert not binding(host, request).changed


def killed_everywhere(host: Machine, before: list[Request], request: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kill the run at each step in turn: the same run again finishes it, and the host can be rolled back."""

    def prepare() -> None:
        for earlier in before:
            converge(host, earlier)

    def settle(wanted: Request) -> None:
        change = binding(host, wanted)
        if change.changed:
            change.apply()
        assert not binding(host, wanted).changed

    pristine = host.tree.content()
    killer = Killer(monkeypatch, (host.root, "write_sysfs"), (host.runner, "run"))
    for steps in killer.each(prepare, lambda: settle(request)):
        settle(request)
        settle(NOTHING)
        assert host.tree.content() == pristine, "killed after %d steps" % steps


def content_of(host: Machine) -> dict[str, str]:
    """Everything on the host, but for the group numbers: the kernel gives the next free one to a group made anew."""
    names, numbers = {}, {}
    for number in host.root.listdir("/sys/kernel/iommu_groups"):
        owners = ",".join(host.root.listdir("/sys/kernel/iommu_groups", number, "devices"))
        names["/iommu_groups/" + number] = "/iommu_groups/of-" + owners
        numbers["/dev/vfio/" + number] = "/dev/vfio/of-" + owners
        names["-> ../%s" % number] = "-> ../of-" + owners

    def renamed(text: str) -> str:
        for old, new in names.items():
            text = re.sub(old + (r"(?![\w/])" if old[0] == "-" else r"\b"), new, text)
        return text

    content = host.tree.content().items()
    return {renamed(numbers.get(path, path)): renamed(text) for path, text in content}
