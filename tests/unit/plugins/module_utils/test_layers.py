# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who may import whom: the table in docs/architecture.md, enforced."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Iterator

import graphlib
import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding import bundle

REPOSITORY = Path(__file__).parents[4]
MODULE_UTILS = REPOSITORY / "plugins" / "module_utils"
ARCHITECTURE = REPOSITORY / "docs" / "architecture.md"
LONGEST_CLASS = 300
FOUNDATION = {"_base", "_host"}
# For each package, those that it may import besides itself.
MAY_IMPORT: dict[str, set[str]] = {
    "_base": set(),
    "_host": {"_base"},
    "_policy": FOUNDATION,
    "_cmdline": FOUNDATION,
    "_dkms": FOUNDATION,
    "_devices": FOUNDATION | {"_policy"},
    "_hugepages": FOUNDATION | {"_cmdline"},
    "_access": FOUNDATION | {"_policy"},
    "_report": FOUNDATION | {"_policy", "_devices"},
    "_preflight": FOUNDATION | {"_policy", "_cmdline", "_dkms", "_devices", "_hugepages", "_access"},
    "_binding": FOUNDATION | {"_policy", "_devices", "_report"},
    "module_utils": {"_base", "_answer"},  # _answer.py and _run.py, one of which every module calls
}
ON_THE_HOST = FOUNDATION | {"_policy", "_devices", "_report", "_binding"}
FILES = sorted(MODULE_UTILS.rglob("*.py"))


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(MODULE_UTILS).with_suffix("").parts)


def imports(path: Path) -> Iterator[str]:
    """Yield every module of module_utils that a file imports, and fail at Ansible."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not any(alias.name.startswith("ansible") for alias in node.names), path
        elif isinstance(node, ast.ImportFrom):
            assert node.level or not (node.module or "").startswith("ansible"), path
            if node.level:
                above = list(path.parent.parts[: len(path.parent.parts) - node.level + 1])
                where = Path(*above, *(node.module or "").split(".") if node.module else ())
                if where.with_suffix(".py").exists():
                    yield name_of(where.with_suffix(".py"))
                else:
                    yield from (name_of(where / (alias.name + ".py")) for alias in node.names)


def test_the_architecture_s_table_is_this_one() -> None:
    text = ARCHITECTURE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d) \| `(_\w+)` \| .* \| ([^|]*) \|$", text, re.MULTILINE)
    below: dict[str, set[str]] = {}
    for floor, package, allowed in rows:
        named = set(re.findall(r"`(_\w+)`", allowed))
        below[package] = named or {name for number, name, _allowed in rows if number < floor}
        assert allowed == "the standard library" or below[package]
    below["_base"] = set()
    assert below == {package: allowed for package, allowed in MAY_IMPORT.items() if package.startswith("_")}


def test_every_file_that_the_architecture_names_is_there() -> None:
    """Those of the collection: paths on a host begin with a slash."""
    text = ARCHITECTURE.read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:_\w+|plugin_utils|tests|bench|molecule|plugins|kmod|roles|tools)/[\w./]*)`", text))
    assert len(named) > 40
    places = (REPOSITORY, REPOSITORY / "plugins", MODULE_UTILS)
    assert [name for name in sorted(named) if not any((place / name).exists() for place in places)] == []


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_package_imports_only_what_is_below_it(path: Path) -> None:
    package = path.parent.name
    others = {name.partition(".")[0] for name in imports(path)} - {package}
    assert others <= MAY_IMPORT[package], "%s imports %s" % (name_of(path), others - MAY_IMPORT[package])


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = {name_of(path): set(imports(path)) for path in FILES if path.name != "bundle.py"}
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError


@pytest.mark.parametrize(
    "module, late",
    [
        ("vfio_binding", ["_host.netlink", "_host.disks", "_policy.network_guards", "_policy.storage_guards"]),
        ("vfio_binding", ["_binding.execution", "_devices.transaction", "_policy.undeclared", "_host.network_config"]),
        ("vfio_binding", ["_policy.write_combining", "_host.hugetlb", "_devices.writer"]),
        ("noiommu_info", ["_access.plan", "_access.services", "_hugepages.plan", "_policy.network_guards"]),
        ("noiommu_info", ["_access.declared", "_hugepages.declared", "_policy.write_combining", "_base.lock"]),
        ("noiommu_info", ["_cmdline.words", "_policy.others", "_host.dpdk_service"]),
        ("kernel_taint_info", ["_base.durable", "_base.records", "_base.lock", "_base.command"]),
        ("iommu_group_info", ["_devices.finders", "_base.lock", "_base.schema", "_policy.write_combining"]),
        ("hugepages", ["_cmdline.bootloaders"]),
        ("dataplane_access", ["_policy.backend", "_host.hugetlb"]),
    ],
)
def test_what_many_runs_do_not_need_is_not_loaded(module: str, late: list[str]) -> None:
    """On a host, Python compiles each file that is imported, twice."""
    above = bundle.__name__.partition(".module_utils.")[0]
    program = "import sys, %s.modules.%s; print(*sys.modules)" % (above, module)
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True)
    loaded = {name.rpartition(".module_utils.")[2] for name in done.stdout.split()}
    assert "_base.fs" in loaded and loaded.isdisjoint(late)


def test_the_program_on_the_host_is_made_of_these_packages() -> None:
    assert {name.split("/")[1] for name in bundle.files() if name.count("/") == 2} <= ON_THE_HOST


NAMING = {"rename", "replace", "unlink", "remove", "rmdir", "mkdir", "makedirs", "link", "symlink", "removedirs"}
# The lock, which a boot forgets. And the controller's archives, which a build makes again.
WRITES_BY_ITSELF = {"_base.durable", "_base.lock", "_dkms.archive"}


@pytest.mark.parametrize("path", [path for path in FILES if name_of(path) not in WRITES_BY_ITSELF], ids=name_of)
def test_only_one_file_writes(path: Path) -> None:
    """All else calls Root, which syncs files and directories: what it has written survives a power cut."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            called = ast.unparse(node.func)
            assert called not in {"os." + name for name in NAMING}, (node.lineno, called)
            assert called != "os.open" or "O_CREAT" not in ast.unparse(node), node.lineno
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "open":
            mode = next((word.value for word in node.keywords if word.arg == "mode"), (node.args + [None])[1:][0])
            assert mode is None or ast.unparse(mode).strip("'") in ("r", "rb"), node.lineno


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_class_is_long(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef):
            assert (node.end_lineno or 0) - node.lineno < LONGEST_CLASS, node.name
