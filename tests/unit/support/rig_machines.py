# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""Two machines, and the command line of one."""

from __future__ import annotations

from rig import qemu, run, spec

MACHINES = spec.parse(
    {
        "machines": [
            {"name": "a", "groups": ["plain"], "nics": [{"link": "w"}, {"model": "virtio-net-pci"}]},
            {
                "name": "b",
                "iommu": "intel",
                "groups": ["plain"],
                "vars": {"k": "v"},
                "nics": [{"link": "w"}, {"link": "in"}, {"link": "in", "model": "virtio-net-pci"}],
            },
        ]
    }
)


def line(machine, how="tcg"):
    wires, hubs = run.wiring(MACHINES)
    return qemu.command(machine, "U", how, 2222, wires[machine.name], hubs[machine.name])
