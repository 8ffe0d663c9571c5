# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""Change the code of plugins/module_utils in small ways, and count which changes the tests of each file notice.

mutmut does it. It wants the code where Python imports it from, so it gets a copy of what is tracked for each file.
"""

from __future__ import annotations

import argparse
import ast
import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rig.common import REPOSITORY, RigError, interruptible, run_logged

WORK = ".cache/mutants"
PREFIX = "ansible_collections/baremetal/noiommu"
CODE = "plugins/module_utils"
TESTS = "tests/unit"
# mutmut's words for mutants that a test noticed: an endless loop and a crash are noticed, too.
NOTICED = ("killed", "timeout", "segfault")


@dataclass(frozen=True)
class Score:
    """How many of one file's mutants the tests noticed."""

    noticed: int
    total: int

    @property
    def share(self) -> str:
        """In percent, rounded down, so that 100 means all."""
        return f"{100 * self.noticed // self.total} %" if self.total else "-"


def imports(path: Path, plugins: Path) -> set[str]:
    """The files of plugins/ that a file imports, as module_utils/package/file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom):
            continue
        if node.level:
            folder = path.parents[node.level - 1].relative_to(plugins)
            parts = [*folder.parts, *filter(None, (node.module or "").split("."))]
        else:
            parts = (node.module or "").partition(".plugins.")[2].split(".")
        names = [parts, *([*parts, alias.name] for alias in node.names)]
        found.update(name for name in map("/".join, names) if (plugins / f"{name}.py").is_file())
    return found


@functools.cache
def graph(root: Path) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """What each file of plugins/ and what each unit test imports."""
    plugins = root / "plugins"
    code = {str(path.relative_to(plugins).with_suffix("")): imports(path, plugins) for path in plugins.rglob("*.py")}
    tests = {path.relative_to(root): imports(path, plugins) for path in sorted((root / TESTS).rglob("test_*.py"))}
    return code, {str(path): names for path, names in tests.items()}


def tests_of(root: Path, module: str) -> list[str]:
    """Its own test; else those that import it, and those of the files that import it, up to the first with a test."""
    code, tests = graph(root)
    own = f"{TESTS}/{CODE}/{Path(module).parent}/test_{Path(module).name}.py"
    if own in tests:
        return [own]
    first = f"module_utils/{module}"
    found = {test for test, names in tests.items() if first in names}
    seen, waiting = {first}, [first]
    while waiting:
        wanted = waiting.pop()
        for name in [name for name, names in code.items() if wanted in names and name not in seen]:
            seen.add(name)
            mirrored = f"{TESTS}/plugins/{Path(name).parent}/test_{Path(name).name}.py"
            importing = {test for test, names in tests.items() if name in names or test == mirrored}
            found |= importing
            if not importing:
                waiting.append(name)
    return sorted(found)


def copy(root: Path, into: Path) -> None:
    """Copy what is tracked, as it is now, to where the collection is imported from."""
    tracked = subprocess.run(["git", "-C", str(root), "ls-files", "-z"], check=True, capture_output=True, text=True)
    for name in filter(None, tracked.stdout.split("\0")):
        if (root / name).is_file():
            (into / PREFIX / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, into / PREFIX / name)


def configuration(module: str, tests: Sequence[str]) -> str:
    """What mutmut reads."""
    chosen = "".join(f"\n    {PREFIX}/{test}" for test in tests)
    return (
        f"[mutmut]\nsource_paths = {PREFIX}/{CODE}\nonly_mutate = {PREFIX}/{CODE}/{module}.py\n"
        "also_copy = ansible_collections\n"
        "pytest_add_cli_args =\n    -p\n    no:cacheprovider\n    -p\n    no:testinfra\n"
        f"pytest_add_cli_args_test_selection ={chosen}\n"
    )


def measure(root: Path, module: str) -> Score:
    """Try all mutants of one file."""
    tests = tests_of(root, module)
    if not tests:
        raise RigError(
            f"no unit test imports {module}",
            "neither itself nor by way of a module that it tests",
            f"write {TESTS}/{CODE}/{Path(module).parent}/test_{Path(module).name}.py",
        )
    work = root / WORK / module
    shutil.rmtree(work, ignore_errors=True)
    copy(root, work)
    (work / "setup.cfg").write_text(configuration(module, tests), encoding="utf-8")
    mutmut = ["env", "-C", str(work), "mutmut"]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    children = str(os.cpu_count() or 1)
    run_logged(f"mutants of {module}", [*mutmut, "run", "--max-children", children], work / "log", env=environment)
    subprocess.run([*mutmut, "export-cicd-stats"], check=True, stdout=subprocess.DEVNULL, env=environment)
    numbers = json.loads((work / "mutants/mutmut-cicd-stats.json").read_text(encoding="utf-8"))
    return Score(sum(numbers[name] for name in NOTICED), numbers["total"])


def modules(root: Path, wanted: Sequence[str]) -> list[str]:
    """The files that were named on the command line, or all."""
    known = sorted(str(path.relative_to(root / CODE).with_suffix("")) for path in (root / CODE).glob("_*/*.py"))
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise RigError(
            f"{CODE} has no {', '.join(unknown)}",
            "it has " + " ".join(known),
            "name files as package/file, without .py",
        )
    return list(wanted) or known


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/mutants", description=__doc__.splitlines()[0])
    parser.add_argument(
        "names", nargs="*", metavar="_package/file", help=f"of {CODE}, without .py (default: all, some hours)"
    )
    args = parser.parse_args()
    scores: dict[str, Score] = {}
    try:
        with interruptible():
            if shutil.which("mutmut") is None:
                raise RigError("mutmut is missing", "it is not on PATH", "run it as make mutants, which installs it")
            for module in modules(REPOSITORY, args.names):
                scores[module] = measure(REPOSITORY, module)
                print(f"{module}: {scores[module].noticed} of {scores[module].total}", flush=True)
    except (KeyboardInterrupt, RigError) as exc:
        print(exc if isinstance(exc, RigError) else "interrupted", file=sys.stderr)
        return 1
    finally:
        table(scores)
    print(f"\nWhat was not noticed: cd {WORK}/FILE && mutmut results, and mutmut show NAME.")
    return 0


def table(scores: dict[str, Score]) -> None:
    """Print the shares by file, the lowest first."""
    print("\n| file | mutants | noticed | share |\n|---|--:|--:|--:|")
    for module, score in sorted(scores.items(), key=lambda item: item[1].noticed / max(1, item[1].total)):
        print(f"| {module} | {score.total} | {score.noticed} | {score.share} |")
    whole = Score(sum(score.noticed for score in scores.values()), sum(score.total for score in scores.values()))
    print(f"| all | {whole.total} | {whole.noticed} | {whole.share} |", flush=True)
