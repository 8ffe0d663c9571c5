# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Services that only stand for others, as distributions have them."""

from __future__ import annotations

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._access import wrappers
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.units import read_unit
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree

USR = "/usr/lib/systemd/system/"
# Debian 12's and 13's openvswitch-switch; RHEL's openvswitch is alike.
OVS = """[Unit]
After=network-pre.target ovsdb-server.service ovs-vswitchd.service
PartOf=network.target
Requires=ovsdb-server.service
Requires=ovs-vswitchd.service

[Service]
Type=oneshot
ExecStart=/bin/true
RemainAfterExit=yes
"""
DAEMON = "[Service]\nType=forking\nExecStart=/usr/share/openvswitch/scripts/ovs-ctl --no-ovsdb-server start"


def refusal(tree: Tree, name: str, text: str) -> HostError | None:
    tree.file(USR + name, text)
    unit = read_unit(tree.root, name)
    assert unit is not None
    found = wrappers.refusals(tree.root, name, unit)
    return found[0] if found else None


def test_the_service_that_stands_for_open_vswitch_names_the_one_with_the_ports(tree: Tree) -> None:
    for name in ("ovsdb-server.service", "ovs-vswitchd.service"):
        tree.file(USR + name, DAEMON)
    error = refusal(tree, "openvswitch-switch.service", OVS)
    assert error is not None and error.code == "wrapper"
    assert error.evidence == [USR + "openvswitch-switch.service: ExecStart=/bin/true"]
    assert error.remedy == "List the service that runs the application: ovs-vswitchd.service."


def test_a_service_whose_instances_do_the_work(tree: Tree) -> None:
    tree.file(USR + "fwd@.service", "[Service]\nExecStart=/usr/bin/fwd %i")
    error = refusal(tree, "fwd.service", "[Service]\nType=oneshot\nExecStart=/usr/bin/true")
    assert error is not None and "fwd@.service" in error.remedy


@pytest.mark.parametrize(
    ("start", "said", "remedy"),
    [
        ("-/bin/true", "runs nothing itself", "list-dependencies"),
        ("/bin/systemctl start fwd", "only starts others", "application: fwd.service."),
        ("/usr/bin/systemctl start fwd.service other.service", "only starts others", "application: fwd.service."),
        ("/usr/bin/docker run --rm fwd", "by docker", "container"),
        ("/usr/bin/podman start -a fwd", "by podman", "container"),
        ("/usr/bin/virsh start fwd", "by virsh", "container"),
        ("/bin/true\nExecStart=\nExecStart=/usr/bin/fwd", None, ""),
        ("/bin/true\nExecStart=/usr/bin/fwd", None, ""),
        ("/usr/bin/fwd --true", None, ""),
    ],
)
def test_what_runs_the_application(tree: Tree, start: str, said: str | None, remedy: str) -> None:
    tree.file(USR + "fwd.service", "[Service]\nExecStart=/usr/bin/fwd")
    error = refusal(tree, "app.service", "[Service]\nExecStart=" + start)
    if said is None:
        assert error is None
    else:
        assert error is not None and said in error.message and remedy in error.remedy


def test_a_unit_without_commands_of_its_own_is_not_judged(tree: Tree) -> None:
    assert refusal(tree, "app.service", "[Service]\nType=forking") is None
