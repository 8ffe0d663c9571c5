# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of signed modules share: the operator's steps, and a module without its signature."""

from __future__ import annotations

import base64
import shlex

from live import RUN, module, on

KO = "$(find /lib/modules/$(uname -r) -name 'noiommu.ko*')"
CERTIFICATE = RUN / "mok.der"

# Drops what the kernel finds at the end of a signed module: signature, its description, a magic line.
_STRIP = """
import struct, sys
data = open(sys.argv[1], "rb").read()
magic = b"~Module signature appended~\\n"
assert data.endswith(magic), "not signed"
size = struct.unpack(">8xI", data[-len(magic) - 12:-len(magic)])[0]
open("/run/unsigned.ko", "wb").write(data[:-len(magic) - 12 - size])
"""


def signing(host: str) -> dict:
    """What noiommu_info says of it."""
    return module(host, "noiommu_info", accept_unsafe=True)["module_signing"]


def make_key(host: str) -> None:
    """Follow the printed steps as far as they make the key."""
    for step in signing(host)["enrol_with"]:
        if not step.startswith(("mokutil", "reboot")):
            on(host, step)


def fetch_certificate(host: str) -> None:
    """Bring the certificate to this machine."""
    CERTIFICATE.write_bytes(base64.b64decode(on(host, "base64 /var/lib/dkms/mok.pub")))


def load_unsigned(host: str) -> str:
    """Try to load the installed module without its signature; return what was said, or fail if it loads."""
    on(host, f"python3 - {KO}", stdin=_STRIP)
    said = on(host, "insmod /run/unsigned.ko 2>&1 && echo LOADED; rm /run/unsigned.ko; dmesg | tail -5")
    assert "LOADED" not in said, said
    return said


def fails(host: str, command: str) -> str:
    """Run a command that has to fail; return what it said."""
    return on(host, f"if sh -c {shlex.quote(command)} 2>&1; then exit 1; fi")
