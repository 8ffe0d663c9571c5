# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""The machine list: what is accepted, and that every mistake is told with a cause and a remedy."""
from __future__ import annotations

import pytest
from rig import spec
from rig.common import RigError

PAIR = {"machines": [
    {"name": "a", "nics": [{"model": "e1000e", "link": "w"}, {"model": "virtio-net-pci", "addr": "08"}]},
    {"name": "b", "iommu": "intel", "memory": 2048, "groups": ["g"], "vars": {"x": 1}, "nics": [{"link": "w"}]},
]}


def test_defaults_and_addresses():
    a, b = spec.parse(PAIR)
    assert (a.image, a.memory, a.cpus, a.iommu) == ("debian12", 1024, 2, "none")
    assert [nic.address for nic in a.nics] == ["0000:00:10.0", "0000:00:08.0"]
    assert (b.iommu, b.memory, b.groups, b.vars, b.nics[0].model) == ("intel", 2048, ("g",), {"x": 1}, "e1000e")
    assert spec.links([a, b]) == {"w": [("a", 0), ("b", 0)]}


def test_identical_lists_give_identical_macs_and_different_machines_different_ones():
    macs = [nic.mac for machine in spec.parse(PAIR) for nic in machine.nics]
    assert macs == [nic.mac for machine in spec.parse(PAIR) for nic in machine.nics]
    assert len(set(macs)) == len(macs)


@pytest.mark.parametrize(("machine", "cause"), [
    ({"name": "Bad_Name"}, "host name"),
    ({"name": "a", "memroy": 1}, "unknown key 'memroy'"),
    ({"name": "a", "memory": "1G"}, "not a number"),
    ({"name": "a", "iommu": "amd"}, "'amd' is not possible"),
    ({"name": "a", "groups": "g"}, "groups is a list"),
    ({"name": "a", "nics": ["e1000e"]}, "a NIC is a dictionary"),
    ({"name": "a", "nics": [{"model": "rtl8139"}]}, "'rtl8139' is not possible"),
    ({"name": "a", "nics": [{"mac": "53:54:00:00:00:01"}]}, "unicast MAC"),
    ({"name": "a", "nics": [{"mac": 190839262533}]}, "unicast MAC"),
    ({"name": "a", "nics": [{"addr": "02"}]}, "not a free PCI slot"),
    ({"name": "a", "nics": [{"addr": 10}]}, "not a free PCI slot"),
    ({"name": "a", "nics": [{"addr": "10.1"}]}, "not a free PCI slot"),
    ({"name": "a", "nics": [{"addr": "11"}, {}, {"addr": "11"}]}, "same PCI slot"),
    ({"name": "a", "nics": [{"mac": "52:54:00:00:00:01"}, {"mac": "52:54:00:00:00:01"}]}, "same MAC"),
    ({"name": "a", "nics": [{"link": "lonely"}]}, "'lonely' has 1 end"),
    ("a", "a machine is a dictionary"),
])
def test_mistakes_are_told(machine, cause):
    with pytest.raises(RigError) as caught:
        spec.parse({"machines": [machine]})
    if "same PCI slot" in cause:
        assert "0000:00:11.0" in caught.value.evidence
    assert cause in caught.value.cause
    assert caught.value.evidence and caught.value.remedy


@pytest.mark.parametrize("document", [None, [], {}, {"machines": []}, {"machines": [{"name": "a"}], "vms": 1},
                                      {"machines": [{"name": "a"}, {"name": "a"}]}])
def test_wrong_documents_are_told(document):
    with pytest.raises(RigError, match="machine list"):
        spec.parse(document)


def test_unreadable_lists_are_told(tmp_path):
    (tmp_path / "m.yml").write_text("machines: [", encoding="utf-8")
    for name in ("m.yml", "absent.yml"):
        with pytest.raises(RigError, match="cannot read"):
            spec.load(tmp_path / name)
