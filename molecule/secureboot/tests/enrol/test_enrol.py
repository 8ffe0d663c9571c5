# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host that demands signatures and is not locked down: its firmware gets the certificate, then it can be deployed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from live import RUN, changes_since_baseline, on, refused, rig
from signing import CERTIFICATE, fetch_certificate, make_key, signing

HOST = "tango"
OWNER = "77fa9abd-0359-4d32-bd60-28f4e78f784b"
ENFORCE = "echo 1 > /sys/module/module/parameters/sig_enforce"


def test_an_unenrolled_key_is_detected():
    on(HOST, ENFORCE)
    assert "[none]" in on(HOST, "cat /sys/kernel/security/lockdown")
    refused(HOST, "key_not_enrolled", "sig_enforce: Y", "Secure Boot: off")
    make_key(HOST)
    assert changes_since_baseline(HOST) == []
    assert signing(HOST)["enrolled"] == "no"


def test_a_certificate_of_the_firmware_is_trusted():
    """Kernels take shim's list only under Secure Boot; the firmware's own list counts always."""
    fetch_certificate(HOST)
    rig("off", HOST)
    tool = Path(sys.executable).with_name("virt-fw-vars")
    subprocess.run([tool, "--inplace", RUN / HOST / "vars.fd", "--add-db", OWNER, CERTIFICATE], check=True)
    rig("on", HOST)
    on(HOST, ENFORCE)
    state = signing(HOST)
    assert state["enforced"] and state["enrolled"] == "yes", state
