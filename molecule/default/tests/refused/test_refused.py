# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every mistake an operator can make ends the run with one message and an unchanged host."""

from __future__ import annotations

import json

import pytest
from live import broken, changes_since_baseline, on, refused

HOST = "alpha"
NIC = "0000:00:10.0"
KERNEL_BUILD = "/lib/modules/$(uname -r)/build"


@pytest.fixture(autouse=True, scope="module")
def host_as_it_was():
    """Compared once, after all refusals: to read an emulated host whole takes as long as to be refused."""
    yield
    assert changes_since_baseline(HOST) == []


@pytest.fixture(scope="module")
def management() -> dict[str, str]:
    """The NIC that carries the ssh connection, by every name that it has."""
    route = json.loads(on(HOST, "ip -j route show default"))[0]
    name = route["dev"]
    # virtio: the interface's device is virtioN, the PCI device is above it.
    address = on(HOST, f"basename $(dirname $(readlink -f /sys/class/net/{name}/device))").strip()
    return {
        "interface": name,
        "mac": on(HOST, f"cat /sys/class/net/{name}/address").strip(),
        "address": address,
        "vendor_device": on(HOST, f"cd /sys/bus/pci/devices/{address} && cat vendor device | tr '\\n' :").strip(":\n"),
        "ip": json.loads(on(HOST, f"ip -j -4 address show dev {name}"))[0]["addr_info"][0]["local"],
    }


def test_without_consent():
    refused(HOST, "unsafe_not_accepted", "noiommu_accept_unsafe", noiommu_accept_unsafe=False)


@pytest.mark.parametrize("selector", ("address", "interface", "mac", "vendor_device"))
def test_the_management_nic_is_never_taken(management, selector):
    """Guarded whatever the selector; the message names the address and the route that hold the device."""
    value = management[selector].replace("0x", "")
    refused(
        HOST,
        "guarded_device",
        management["address"],
        management["ip"],
        "default",
        noiommu_devices=[{selector: value}],
    )


def test_unknown_address():
    refused(HOST, "0000:00:1e.7", noiommu_devices=[{"address": "0000:00:1e.7"}])


def test_malformed_address():
    refused(HOST, "00:zz.0", noiommu_devices=[{"address": "00:zz.0"}])


def test_duplicate():
    refused(HOST, NIC, "52:54:00:0a:00:00", noiommu_devices=[{"address": NIC}, {"mac": "52:54:00:0a:00:00"}])


@pytest.mark.parametrize(
    "sources, expected",
    (
        pytest.param("", ("no_repository", "linux-headers-", "prebuilt"), id="no repository"),
        pytest.param("deb [trusted=yes] file:/run/no-sources ./", ("linux-headers-", "by hand"), id="an empty one"),
    ),
)
def test_no_headers_for_the_kernel(sources, expected):
    """The headers package is held back, so that installing it does not mend this by itself."""
    with broken(
        HOST,
        f"cp -d {KERNEL_BUILD} /run/build.kept && rm {KERNEL_BUILD}"
        " && mkdir -p /run/no-sources/list.d && touch /run/no-sources/Packages"
        f" && echo '{sources}' > /run/no-sources/list"
        " && mount --bind /run/no-sources/list.d /etc/apt/sources.list.d"
        " && mount --bind /run/no-sources/list /etc/apt/sources.list && mount -t tmpfs none /var/lib/apt/lists",
        "umount /var/lib/apt/lists; umount /etc/apt/sources.list; umount /etc/apt/sources.list.d;"
        f" rm -r /run/no-sources; mv /run/build.kept {KERNEL_BUILD}",
    ):
        refused(HOST, *expected)


@pytest.mark.parametrize(
    "damage, repair, expected",
    (
        pytest.param(
            "mount --bind /bin/false $(readlink -f /usr/bin/gcc)",
            "umount $(readlink -f /usr/bin/gcc)",
            ("compiler",),
            id="broken compiler",
        ),
        pytest.param(
            "mount --bind /lib/modules /lib/modules && mount -o remount,ro,bind /lib/modules",
            "umount /lib/modules",
            ("/lib/modules", "ead-only"),
            id="unwritable /lib/modules",
        ),
        pytest.param(
            "mkdir -p /run/kept && cp -a /var/lib/dkms/. /run/kept && mount -t tmpfs -o size=64k none /var/lib/dkms"
            " && cp -a /run/kept/. /var/lib/dkms",
            "umount /var/lib/dkms; rm -r /run/kept",
            ("/var/lib/dkms", "space"),
            id="no space left",
        ),
    ),
)
def test_a_build_that_cannot_work(damage, repair, expected):
    with broken(HOST, damage, repair):
        refused(HOST, *expected)
