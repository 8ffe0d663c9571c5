# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the backend and each boot need: kernel modules, their parameters, and the units that start."""

from __future__ import annotations

from typing import Iterator

from .._base.fs import Root
from .._base.paths import HOTPLUG_PATH, HOTPLUG_RULES, HOTPLUG_SERVICE, MODPROBE, UNIT, UNIT_NAME, WANTS
from .._host.kernels import headers, headers_package, installed, running, version_key
from .._host.modules import module_installed, module_loaded
from .._policy.backend import Needs, needs
from .deployed import Deployed

_NOIOMMU = "noiommu"


def drift(root: Root, deployed: Deployed) -> Iterator[str]:
    """Yield what is missing or has another value, if devices are bound at boot."""
    wanted = _needs(deployed)
    if wanted is None:
        return
    yield from _modules(root, wanted)
    if wanted.modprobe_options and not root.exists(MODPROBE):
        yield "%s is missing" % MODPROBE
    if not root.exists(UNIT) or not root.exists(WANTS):
        yield "%s does not start at boot" % UNIT_NAME
    for path in (HOTPLUG_RULES, HOTPLUG_SERVICE, HOTPLUG_PATH):
        if not root.exists(path):
            yield "%s is missing: a device that comes back is not bound before the next boot" % path


def warnings(root: Root, deployed: Deployed) -> Iterator[str]:
    """Yield what will be missing after a boot into a kernel that was installed since."""
    wanted = _needs(deployed)
    if wanted is None or _NOIOMMU not in wanted.modules:
        return
    now = version_key(running(root))
    for release in installed(root):
        if version_key(release) > now and not module_installed(root, _NOIOMMU, release):
            lacks = "" if headers(root, release) else ", and no headers (%s)" % headers_package(root, release)
            yield "the installed kernel %s has no module %s%s: booting it leaves the devices without a backend" % (
                release,
                _NOIOMMU,
                lacks,
            )


def _needs(deployed: Deployed) -> Needs | None:
    """Return what the bindings need; None if no device is bound at boot."""
    bindings = deployed.bindings
    if not bindings.get("backend"):
        return None
    combines = any("write_combining" in entry for entry in deployed.devices)
    return needs(bindings["backend"], bindings["driver"], bindings["dpdk_pa_hint"], combines)


def _modules(root: Root, wanted: Needs) -> Iterator[str]:
    release = running(root)
    for module in wanted.modules:
        if not module_installed(root, module, release):
            yield "%s is not installed for the running kernel %s" % (module, release)
        if not module_loaded(root, module):
            yield "%s is not loaded" % module
    for path, value in wanted.parameters.items():
        found = root.read_text(path)
        if found is not None and found != value:
            yield "%s is %s instead of %s" % (path, found, value)
