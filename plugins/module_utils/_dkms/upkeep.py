# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether DKMS will build the module for kernels that are installed later, as an unattended upgrade does."""

from __future__ import annotations

import re

from .._base.fs import Root
from .._host import kernels as _kernels

NO_AUTOINSTALL = "/etc/dkms/no-autoinstall"
_SETTINGS = "/etc/dkms"
_PACKAGES = "/var/lib/dpkg/info"
_LATER = "After the next upgrade of the kernel, its devices stay without a backend until the host is deployed again."


def headers_to_come(root: Root) -> tuple[str, str] | None:
    """Return the package that brings newer kernels, and the one that would bring their headers but is not installed.

    Debian and its kin have one of each for every flavour. Elsewhere the package of the headers is upgraded by itself.
    """
    installed = [name[: -len(".list")] for name in root.listdir(_PACKAGES) if name.endswith(".list")]
    release = _kernels.running(root)
    flavours = [
        match.group(1)
        for match in map(re.compile(r"linux-image-([a-z][a-z0-9.-]*)\Z").match, installed)
        # generic-hwe-24.04 brings kernels of the flavour generic.
        if match and release.endswith("-" + match.group(1).partition("-hwe-")[0])
    ]
    if not flavours:
        return None
    flavour = max(flavours, key=len)  # cloud-amd64 before amd64
    headers = "linux-headers-" + flavour
    return None if headers in installed else ("linux-image-" + flavour, headers)


def warnings(root: Root, name: str, version: str) -> list[str]:
    """Return what will keep DKMS from building for kernels to come."""
    found = _autoinstall(root, name, version)
    packages = headers_to_come(root)
    if packages is not None:
        found.append("%s brings newer kernels, but %s is not installed. %s Install it." % (*packages, _LATER))
    return found


def _autoinstall(root: Root, name: str, version: str) -> list[str]:
    if root.exists(NO_AUTOINSTALL):
        return ["%s is there, so DKMS builds nothing for new kernels. %s Remove that file." % (NO_AUTOINSTALL, _LATER)]
    found = []
    for path in ("%s/%s.conf" % (_SETTINGS, name), "%s/%s-%s.conf" % (_SETTINGS, name, version)):
        for number, line in enumerate((root.read_text(path) or "").splitlines(), 1):
            value = re.match(r"\s*AUTOINSTALL=[\"']?(\w*)", line)
            if value and not value.group(1).lower().startswith("y"):
                found.append(
                    "%s, line %d, has DKMS build nothing for new kernels: %s. %s Remove that line."
                    % (path, number, line.strip(), _LATER)
                )
    return found
