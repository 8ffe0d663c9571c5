# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Read which kernel modules are loaded, and which a kernel can load."""

from __future__ import annotations

import os
import re

from .._base.fs import Root


def module_loaded(root: Root, module: str) -> bool:
    """Whether a module is loaded or built in."""
    # A built-in one shows itself in /sys/module only if it has parameters.
    return root.exists("/sys/module", module.replace("-", "_")) or _listed(root, module, "modules.builtin", None)


def module_installed(root: Root, module: str, release: str | None = None) -> bool:
    """Whether a kernel (the running one by default) can load a module, as depmod sees it."""
    return _listed(root, module, "modules.dep", release) or _listed(root, module, "modules.builtin", release)


def dependencies(root: Root, module: str) -> list[str]:
    """Return the modules that loading one loads before it, in that order."""
    line = re.search(r"(?:^|/)%s\.ko[^:\n]*:(.*)$" % _either(module), _index(root, "modules.dep", None), re.MULTILINE)
    paths = line.group(1).split() if line else []
    return [os.path.basename(path).split(".ko")[0] for path in reversed(paths)]


def _listed(root: Root, module: str, index: str, release: str | None) -> bool:
    pattern = r"(?:^|/)%s\.ko(\.\w+)?(:|$)" % _either(module)
    return re.search(pattern, _index(root, index, release), re.MULTILINE) is not None


def _index(root: Root, name: str, release: str | None) -> str:
    return root.read_text("/lib/modules", release or os.uname().release, name) or ""


def _either(module: str) -> str:
    """Match a module's name in its file name, where dashes and underscores mean the same."""
    return re.sub("[-_]", "[-_]", module)
