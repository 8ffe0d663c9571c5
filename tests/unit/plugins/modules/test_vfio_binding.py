# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module around the transaction: results, check mode, diff."""

from __future__ import annotations

import pytest
import yaml
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding.request import Request
from ansible_collections.baremetal.noiommu.plugins.module_utils._policy.guard_context import GuardContext
from ansible_collections.baremetal.noiommu.plugins.modules import vfio_binding
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_kernel import Machine
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_module import FakeModule

NIC = "0000:00:04.0"
REQUEST = Request([{"address": NIC}], accept_unsafe=True)


@pytest.fixture
def host(machine: Machine) -> Machine:
    machine.tree.pci(NIC, driver="e1000e")
    machine.tree.net("eth1", NIC, "52:54:00:00:00:11")
    return machine


def run(host: Machine, request: Request = REQUEST, check: bool = False, diff: bool = True) -> dict:
    return vfio_binding.bind(FakeModule({}, check, diff), host.kernel, GuardContext(host.root), request)


def test_documentation_names_every_result(host: Machine) -> None:
    documented = yaml.safe_load(vfio_binding.RETURN)
    result = run(host)
    assert set(result) - {"changed", "diff"} == set(documented) - {"refusals"}
    assert set(result["devices"][0]) == set(documented["devices"]["contains"])
    assert set(result["before"]["devices"][0]) == set(documented["before"]["contains"]["devices"]["contains"])


def test_check_mode_and_the_real_run_agree(host: Machine) -> None:
    predicted = run(host, check=True)
    assert host.requests == []
    real = run(host)
    again = run(host)
    assert predicted["changed"] and real["changed"] and not again["changed"]
    assert predicted["before"] == real["before"] and predicted["steps"] == real["steps"]
    assert predicted["diff"] == real["diff"]
    assert again["diff"] == [] and again["steps"] == [] and again["before"] == real["after"]


def test_diff_only_when_asked(host: Machine) -> None:
    assert "diff" not in run(host, diff=False)


def test_the_diff_is_readable(host: Machine) -> None:
    devices = run(host)["diff"][0]
    assert yaml.safe_load(devices["before"].replace("0000:00:04.0:", "'0000:00:04.0':"))[NIC]["driver"] == "e1000e"
    assert "driver: vfio-pci" in devices["after"]


def test_check_mode_of_giving_back(host: Machine) -> None:
    run(host)
    predicted = run(host, Request([]), check=True)
    real = run(host, Request([]))
    assert predicted["after"] == real["after"] and predicted["changed"]
    assert predicted["after"]["devices"][0]["safety"] == "none"
    assert not run(host, Request([]))["changed"]
