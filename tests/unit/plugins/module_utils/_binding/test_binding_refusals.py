# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What speaks against a binding, and what each backend takes."""

from __future__ import annotations

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError, Refused
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding.request import Request
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.netlink import NetState, Route
from ansible_collections.baremetal.noiommu.tests.unit.support.data_nics import (
    BOTH,
    DISK,
    NIC,
    VIRTIO,
    state,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_kernel import (
    NOIOMMU_MODE,
    UNSAFE_INTERRUPTS,
    Machine,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.transactions import (
    NOTHING,
    binding,
    converge,
    use,
)


def test_every_reason_is_given_at_once(host: Machine) -> None:
    index = host.root.read_int("/sys/class/net/eth1/ifindex")
    net = NetState([], [Route("inet6", "77", "2001:db8::/64", None, (index,), False)])
    request = Request([{"address": NIC}, {"address": "0000:99:00.0"}])
    with pytest.raises(Refused) as caught:
        binding(host, request, net=net)
    assert [refusal.code for refusal in caught.value.refusals] == ["selector", "unsafe_not_accepted", "guarded_device"]
    assert "2001:db8::/64 in table 77 dev eth1" in str(caught.value)
    assert host.requests == []


def test_a_missing_kernel_module_is_an_error_but_in_check_mode_a_warning(host: Machine) -> None:
    host.module_index("vfio-pci", "vfio_iommu_type1")
    with pytest.raises(Refused, match="noiommu is not installed"):
        binding(host, BOTH)
    change = binding(host, BOTH, check_mode=True)
    assert change.changed and any("dry run" in message for message in change.messages)


def test_a_device_in_use_is_not_rebuilt(host: Machine) -> None:
    converge(host, BOTH)
    use(host, NIC)
    host.requests.clear()
    with pytest.raises(Refused) as caught:
        binding(host, BOTH._replace(dpdk_pa_hint=False))
    assert [refusal.code for refusal in caught.value.refusals] == ["in_use"]
    assert "process 4711 (dpdk-testpmd)" in str(caught.value)
    assert host.requests == []
    assert not binding(host, BOTH).changed


@pytest.mark.parametrize(
    "kind, node", [("uio/uio0", "/dev/uio0"), ("infiniband_verbs/uverbs0", "/dev/infiniband/uverbs0")]
)
def test_a_device_that_another_userspace_driver_uses_is_not_taken(host: Machine, kind: str, node: str) -> None:
    host.tree.dir("%s/%s" % (host.tree.real(NIC), kind))
    host.tree.file(node)
    host.requests.clear()
    assert binding(host, BOTH).changed
    host.tree.file("/proc/815/comm", "ovs-vswitchd")
    host.tree.dir("/proc/815/fd")
    host.tree.at("/proc/815/fd/9").symlink_to(node)
    with pytest.raises(Refused, match=r"%s has to be unbound .*in use" % NIC) as caught:
        binding(host, BOTH)
    assert "%s is open in process 815 (ovs-vswitchd)" % node in str(caught.value) and host.requests == []


def test_an_unreadable_record_stops_everything(host: Machine) -> None:
    host.tree.file("/var/lib/noiommu/originals.json", "{")
    with pytest.raises(HostError, match=r"originals\.json is unusable"):
        binding(host, BOTH)


def test_iommu_binds_without_anything_insecure(host: Machine) -> None:
    host.tree.group(1, NIC)
    host.tree.group(2, VIRTIO)
    change = converge(host, Request([{"address": NIC}]))
    assert change.backend == "iommu"
    assert state(change)[NIC]["safety"] == "isolated"
    assert not host.root.exists("/sys/module/noiommu") and not host.root.exists(UNSAFE_INTERRUPTS)
    assert not host.root.exists("/etc/modprobe.d/noiommu.conf")
    assert host.root.exists("/etc/noiommu/bindings.json")


def test_iommu_refuses_a_group_that_the_host_shares(host: Machine) -> None:
    host.tree.group(1, NIC, DISK)
    host.tree.pci("0000:00:1c.0", "8086:7a3c", "060400", driver="pcieport", header_type=1)
    host.tree.group(2, "0000:00:1c.0", VIRTIO)
    with pytest.raises(Refused) as caught:
        binding(host, Request([{"address": NIC}, {"address": VIRTIO}]))
    assert [refusal.code for refusal in caught.value.refusals] == ["group_not_viable"]
    assert "%s is in group 1 and bound to virtio-pci" % DISK in str(caught.value)


def test_insecure_backends_are_refused_beside_an_iommu(host: Machine) -> None:
    host.tree.group(1, NIC)
    for backend in ("dkms", "builtin"):
        with pytest.raises(Refused) as caught:
            binding(host, Request([{"address": NIC}], backend=backend, accept_unsafe=True))
        assert caught.value.refusals[0].code == "iommu_active"


def test_builtin_uses_vfios_own_groups(host: Machine) -> None:
    content = host.tree.content()
    host.builtin_noiommu = True
    host.load("vfio")
    loaded = host.tree.content()
    change = converge(host, BOTH)
    assert change.backend == "builtin" and host.root.read_text(NOIOMMU_MODE) == "Y"
    assert change.resolved(change.after())[0]["chardev"].startswith("/dev/vfio/noiommu-")
    assert "options vfio enable_unsafe_noiommu_mode=1" in host.root.read_text("/etc/modprobe.d/noiommu.conf")
    assert not binding(host, BOTH).changed
    converge(host, NOTHING)
    assert host.tree.content() == loaded != content


def test_moving_from_dkms_to_builtin_leaves_nothing_of_dkms(host: Machine) -> None:
    converge(host, BOTH)
    host.builtin_noiommu = True
    host.load("vfio")
    change = converge(host, BOTH)
    assert change.backend == "builtin"
    assert not host.root.exists("/sys/module/noiommu")
    assert not binding(host, BOTH).changed
