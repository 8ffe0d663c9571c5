# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fleets as a run registers them: a small one in which everything occurs, a hostile one, and a large one."""

from __future__ import annotations

import random
from typing import Any

from ansible_collections.baremetal.noiommu.plugins.module_utils._report.fleet import fleet, host_record

KERNELS = ("6.1.0-56-amd64", "6.12.117+deb13-amd64", "7.3.4+deb13-amd64", "5.14.0-570.el9.x86_64")
GENERATED_AT = "2026-03-01T12:00:00Z"
FLAGS = {
    6: ("U", "user", "userspace asked for the taint, or did what the kernel cannot vouch for afterwards"),
    12: ("O", "out_of_tree_module", "an externally built module was loaded"),
    13: ("E", "unsigned_module", "an unsigned module was loaded"),
}


def attribution(bit: int, since: str) -> list[dict[str, Any]]:
    """Who set a bit of the taint mask."""
    if bit != 6:
        return [
            {
                "kind": "module",
                "name": "noiommu",
                "pid": None,
                "since": since,
                "insecure_passthrough": False,
                "evidence": "/dev/kmsg: noiommu: loading out-of-tree module taints kernel.",
            }
        ]
    return [
        {
            "kind": "process",
            "name": "dpdk-testpmd",
            "pid": 1234,
            "since": since,
            "insecure_passthrough": True,
            "evidence": "/dev/kmsg: noiommu 0000:65:00.0: noiommu: handed to dpdk-testpmd[1234] without an IOMMU",
        }
    ]


def device(number: int, backend: str) -> dict[str, Any]:
    """A device as noiommu_info shows it."""
    return {
        "address": f"0000:{0x65 + number // 2:02x}:00.{number % 2}",
        "selected": True,
        "vendor_device": "8086:1572",
        "class": "network",
        "class_code": "020000",
        "driver": "vfio-pci",
        "interfaces": [],
        "mac": f"b4:96:91:00:00:{number:02x}",
        "numa_node": number % 2,
        "group": 10 + number,
        "chardev": f"/dev/vfio/{'noiommu-' if backend == 'builtin' else ''}{10 + number}",
        "safety": "isolated" if backend == "iommu" else "unsafe",
        "safety_reason": "",
        "guards": [],
    }


def answers(backend: str = "dkms", kernel: str = KERNELS[0], devices: int = 2, **changes: Any) -> dict[str, Any]:
    """Return what a run registers for a host in the declared state."""
    insecure, since = backend != "iommu", "2026-01-15T08:30:00Z"
    bits = {"dkms": (6, 12, 13), "builtin": (6,), "iommu": ()}[backend]
    facts = {
        "changed": False,
        "verdict": {
            "backend": backend,
            "module_required": backend == "dkms",
            "safe": not insecure,
            "ok": True,
            "refusals": [],
            "warnings": [],
            "reboot_required": False,
        },
        "kernel": {"release": kernel},
        "os": {"id": "debian", "version_id": "12", "family": "debian"},
        "insecure": {
            "active": insecure,
            "since": since if insecure else None,
            "since_from": "record" if insecure else None,
            "until": "2026-06-30" if insecure else None,
            "expired": False,
            "used_since_boot": insecure,
        },
        "taint": {
            "mask": sum(1 << bit for bit in bits),
            "insecure_passthrough": insecure,
            "evidence": [],
            "flags": [
                {
                    "bit": bit,
                    "value": 1 << bit,
                    "letter": FLAGS[bit][0],
                    "name": FLAGS[bit][1],
                    "meaning": FLAGS[bit][2],
                    "attribution": attribution(bit, since),
                }
                for bit in bits
            ],
        },
        "devices": [device(number, backend) for number in range(devices)],
        "hugepages": [
            {
                "size": "2M",
                "size_bytes": 2 << 20,
                "node": node,
                "count": count,
                "free": count // 2,
                "in_use": count // 2,
            }
            for node, count in ((None, 1024), (0, 512), (1, 512))
        ],
    }
    facts.update(changes)
    unchanged = {"changed": False}
    return {
        "compare_reachable": {"changed": False},
        "preflight_info": facts,
        "kmod_result": unchanged,
        "hugepages_result": unchanged,
        "devices_result": unchanged,
        "access_result": unchanged,
    }


def unreachable(address: str = "192.0.2.7") -> dict[str, Any]:
    """What a run registers for a host that does not answer."""
    message = (
        f"Task failed: Failed to connect to the host via ssh: ssh: connect to host {address} port 22: No route to host"
    )
    return {"compare_reachable": {"unreachable": True, "changed": False, "msg": message}}


def refused(code: str, message: str, evidence: str, remedy: str, **changes: Any) -> dict[str, Any]:
    """What a run registers for a host that is refused."""
    refusal = {"code": code, "message": message, "evidence": [evidence], "remedy": remedy}
    known = answers(**changes)
    known["preflight_info"]["verdict"].update(ok=False, refusals=[refusal])
    return (
        known
        if code == "insecure_expired"
        else {
            **{key: known[key] for key in ("compare_reachable", "preflight_info")},
            "compare_failure": {"failed": True, "msg": "Nothing was changed on this host."},
        }
    )


def drifted(concern: str, **result: Any) -> dict[str, Any]:
    """What a run registers for a host on which one role would change something."""
    return {**answers(), concern: {"changed": True, **result}}


def realistic() -> dict[str, dict[str, Any]]:
    """A fleet of thirteen hosts in which every state occurs."""
    expired = {**answers()["preflight_info"]["insecure"], "until": "2026-01-31", "expired": True}
    return {
        "edge1": answers(),
        "edge2": drifted("hugepages_result", before={"2M": 960}, after={"2M": 1024}),
        "edge3": drifted("devices_result", steps=["0000:65:00.1: unbind from i40e", "0000:65:00.1: bind to vfio-pci"]),
        "edge4": refused(
            "insecure_expired",
            "Insecure passthrough was accepted until 2026-01-31, and that day is over. Nothing on this host"
            " was changed.",
            "noiommu_insecure_until: 2026-01-31, which ended at midnight UTC",
            "Decide anew: set noiommu_insecure_until to a later date, or take insecure passthrough back with the"
            " playbook baremetal.noiommu.rollback.",
            insecure=expired,
        ),
        "edge10": answers("builtin", KERNELS[2], 1),
        "core1": answers("iommu", KERNELS[1], 4),
        "core2": answers("iommu", KERNELS[3], 4, os={"id": "rhel", "version_id": "9.6", "family": "redhat"}),
        "core3": refused(
            "guarded_device",
            "0000:65:00.0 carries the address of the management connection.",
            "eth0: 192.0.2.11, of the ssh connection from 192.0.2.1",
            "Choose another device.",
            backend="iommu",
        ),
        "lab1": refused(
            "unsafe_not_accepted",
            "Insecure mode was not accepted.",
            "hardware IOMMU: absent",
            "If that is acceptable on this host, set accept_unsafe (noiommu_accept_unsafe: true).",
            insecure={"active": False, "since": None, "until": None, "expired": False, "used_since_boot": False},
            taint={"mask": 0, "flags": []},
        ),
        "lab2": unreachable(),
        "lab3": {
            "compare_reachable": {},
            "preflight_info": {"failed": True, "msg": "MODULE FAILURE: no python"},
            "compare_failure": {"failed": True, "msg": "Task failed: the module interpreter was not found"},
        },
        "lab4": answers(
            verdict={
                "backend": "dkms",
                "module_required": True,
                "ok": True,
                "refusals": [],
                "reboot_required": True,
                "warnings": ["The installed kernel 6.1.0-57-amd64 has no headers."],
            },
            module_signing={"enforced": True, "enrolled": "pending", "certificate": "/var/lib/dkms/mok.pub"},
        ),
        "lab5": unreachable("192.0.2.8"),
    }


HOSTILE = (
    "</script><script>window.pwned=1</script>",
    "<img src=x onerror=window.pwned=1>",
    '"><svg onload=window.pwned=1>',
    "'; window.pwned=1; '",
    "{{ 7 * 7 }}",
    "@@script@@ @@data@@",
    "<!--<script>",
    "]]>",
    "\\",
    "\\n\n\r\t",
    "\u2028\u2029",
    "\u202egnp.exe",
    "\x00\x1b[31mred",
    "\ud800",
    "\U000e0041",
    "ß漢字🔥",
    "`${window.pwned=1}`",
    "javascript:window.pwned=1",
    "A" * 100_000,
    "__proto__",
)


def hostile() -> dict[str, dict[str, Any]]:
    """Hosts that answer with whatever might break the report, in every place that takes a string."""

    def poison(value: Any, bad: Any) -> Any:
        if isinstance(value, dict):
            kept = ("changed", "unreachable")
            return {key: inner if key in kept else poison(inner, bad) for key, inner in value.items()}
        if isinstance(value, list):
            return [poison(inner, bad) for inner in value]
        return bad

    models = [answers(), *realistic().values()]
    hosts = {f"{bad[:200]} {number}": poison(models[number % len(models)], bad) for number, bad in enumerate(HOSTILE)}
    others = (None, [], {}, -1, 2**80, float("inf"), float("nan"), True, [[[["x"]]]], {"a": {"b": 1}})
    for number, bad in enumerate(others):
        for place, model in enumerate((answers(), drifted("devices_result", steps=["x"]))):
            hosts[f"type{number}-{place}"] = poison(model, bad)
            hosts[f"shallow{number}-{place}"] = dict.fromkeys(model, bad)
    hosts["deep"] = answers(devices=5000)
    return hosts


def generated(count: int) -> dict[str, dict[str, Any]]:
    """A large fleet; the same each time."""
    dice = random.Random(5)
    hosts = {}
    for number in range(count):
        kind = dice.random()
        if kind < 0.02:
            hosts[f"node{number}"] = unreachable()
        elif kind < 0.04:
            hosts[f"node{number}"] = dice.choice(list(realistic().values()))
        else:
            backend = dice.choice(("dkms", "dkms", "builtin", "iommu"))
            hosts[f"node{number}"] = answers(backend, dice.choice(KERNELS), dice.randint(1, 4))
    return hosts


def records(hosts: dict[str, dict[str, Any]], checked_at: str = GENERATED_AT) -> list[dict[str, Any]]:
    """Return what one run found out about its hosts."""
    in_maintenance = {"lab5": "Its disk is replaced, ticket 4711."}
    found = (host_record(name, known, in_maintenance.get(name, "")) for name, known in hosts.items())
    return [{**one, "checked_at": checked_at} for one in found]


def report(hosts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the report on a fleet."""
    return fleet(records(hosts), GENERATED_AT)


def some(hosts: dict[str, dict[str, Any]], number: int, of: int) -> dict[str, dict[str, Any]]:
    """Return a slice of a fleet, as AWX makes them: every so manieth host."""
    return {name: hosts[name] for name in list(hosts)[number::of]}
