# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""Which tests are run against the mutants of which file. mutmut itself is not run."""

from __future__ import annotations

from pathlib import Path

import pytest
from gate import mutants
from rig.common import REPOSITORY, RigError


def tree(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")


def test_a_file_is_tried_by_its_own_test(tmp_path):
    own = "tests/unit/plugins/module_utils/_p/test_plan.py"
    tree(tmp_path, {"plugins/module_utils/_p/plan.py": "", "plugins/module_utils/_q/plan.py": "", own: ""})
    assert mutants.tests_of(tmp_path, "_p/plan") == [own] and mutants.tests_of(tmp_path, "_q/plan") == []


def test_a_file_without_one_is_tried_by_the_tests_of_those_that_import_it(tmp_path):
    absolute = "from ansible_collections.b.n.plugins.module_utils"
    files = {
        "plugins/module_utils/_p/deep.py": "",
        "plugins/module_utils/_p/plain.py": "from . import deep",
        "plugins/module_utils/_q/own.py": "from .._p.plain import x",
        "plugins/module_utils/_q/above.py": "from .own import x",
        "tests/unit/plugins/module_utils/_q/test_own.py": "",
        "tests/unit/plugins/module_utils/_q/test_above.py": "",
        "tests/unit/plugins/modules/test_it.py": f"{absolute}._p.deep import x",
        "tests/unit/plugins/modules/test_package.py": f"{absolute}._p import deep",
        "tests/unit/plugins/modules/test_namesake.py": f"{absolute}._q import deep",
        "plugins/module_utils/_p/alone.py": "",
    }
    tree(tmp_path, files)
    assert mutants.tests_of(tmp_path, "_p/deep") == [
        "tests/unit/plugins/module_utils/_q/test_own.py",
        "tests/unit/plugins/modules/test_it.py",
        "tests/unit/plugins/modules/test_package.py",
    ]
    with pytest.raises(RigError, match="no unit test imports _p/alone") as caught:
        mutants.measure(tmp_path, "_p/alone")
    assert caught.value.evidence and "_p/test_alone.py" in caught.value.remedy


def test_every_file_has_tests():
    names = mutants.modules(REPOSITORY, [])
    assert "_policy/guards" in names and [name for name in names if not mutants.tests_of(REPOSITORY, name)] == []


def test_a_file_that_is_not_there():
    with pytest.raises(RigError, match="has no _policy/nothing") as caught:
        mutants.modules(REPOSITORY, ["_policy/nothing"])
    assert "_policy/guards" in caught.value.evidence and caught.value.remedy


def test_shares(capsys):
    assert mutants.Score(199, 200).share == "99 %" and mutants.Score(0, 0).share == "-"
    mutants.table({"_p/good": mutants.Score(9, 10), "_p/bad": mutants.Score(1, 10)})
    lines = capsys.readouterr().out.splitlines()
    assert lines[3:] == ["| _p/bad | 10 | 1 | 10 % |", "| _p/good | 10 | 9 | 90 % |", "| all | 20 | 10 | 50 % |"]
