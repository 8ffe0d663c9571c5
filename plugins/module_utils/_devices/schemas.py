# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the records of devices must look like: originals.json and bindings.json.

Entries are checked one by one (``sift`` of ``_base/records.py``): a damaged one affects only its own device.
"""

from __future__ import annotations

from .._base.schema import anything, choice, fields, flag, items, nullable, table, text, whole

_ADDRESS = text(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]", "a PCI address")
_KIND = text(r"[0-9a-f]{4}:[0-9a-f]{4}", "vendor:device")
# These become parts of paths in sysfs.
_NAME = text(r"[A-Za-z0-9_.:@-]+", "a name")
_MAC = text(r"([0-9a-f]{2}:)+[0-9a-f]{2}", "a MAC address")
_IDENTITY = {
    "serials": items(text()),
    "slot": text(),
    "vf": fields({"pf": _ADDRESS, "macs": items(_MAC), "index": nullable(whole())}, more=True),
}
_BARS = items(whole(0, 5, "the number of a BAR"))
_INTERFACE = fields(
    {"name": _NAME, "mac": nullable(_MAC), "up": flag()},
    {"permanent": nullable(_MAC), "mtu": nullable(whole())},  # which the first records did not have
    more=True,
)

_FUNCTION = fields(
    {},
    {
        "mac": _MAC,
        "vlan": whole(),
        "qos": whole(),
        "vlan_protocol": choice("802.1Q", "802.1ad"),
        "trust": flag(),
        "spoof_check": flag(),
        "min_tx_rate": whole(),
        "max_tx_rate": whole(),
        "link_state": choice("auto", "enable", "disable"),
    },
    more=True,
)
_FUNCTIONS = {"functions": table(_FUNCTION, r"[0-9]+")}  # the settings of virtual functions, by their indexes

# One device, or one physical function, as it was before the first change.
ORIGINAL = fields(
    {
        "vendor_device": _KIND,
        "driver": nullable(_NAME),
        "driver_override": nullable(_NAME),
        "interfaces": items(_INTERFACE),
    },
    {**_IDENTITY, "write_combining": _BARS, "unreleased": text()},  # the last: why it could not be released
    more=True,
)
ORIGINAL_SRIOV = fields(
    {"vendor_device": _KIND, "vfs": whole()}, {**_IDENTITY, **_FUNCTIONS, "macs": items(_MAC)}, more=True
)
ORIGINALS = fields(
    {},
    {
        "devices": table(anything()),
        "sriov": table(anything()),
        "parameters": table(text(), r"/sys/module/[^/]+/parameters/[^/]+"),
        "modules": items(_NAME),
    },
    more=True,
)

# One device, or one physical function, that each boot binds.
BINDING = fields(
    {"address": _ADDRESS, "vendor_device": _KIND, "macs": items(_MAC)},
    {**_IDENTITY, "write_combining": _BARS, "original": nullable(ORIGINAL)},
    more=True,
)
BINDING_SRIOV = fields(
    {"address": _ADDRESS, "vendor_device": _KIND, "vfs": whole(), "macs": items(_MAC)},
    {**_IDENTITY, **_FUNCTIONS},
    more=True,
)
BINDINGS = fields(
    {
        "backend": nullable(choice("iommu", "builtin", "dkms")),
        "driver": text("[A-Za-z0-9_-]+", "a driver's name"),
        "dpdk_pa_hint": flag(),
        "devices": items(anything()),
    },
    {"sriov": items(anything()), "insecure_since": nullable(text()), "insecure_until": nullable(text())},
    more=True,
)
