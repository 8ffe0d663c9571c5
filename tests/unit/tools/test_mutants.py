# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""Which tests are run against the mutants of which file. mutmut itself is not run."""

from __future__ import annotations

import pytest
from gate import mutants
from rig.common import REPOSITORY, RigError


def test_a_file_is_tried_by_its_own_test():
    assert mutants.tests_of(REPOSITORY, "_guards") == ["tests/unit/plugins/module_utils/test_guards.py"]


def test_a_file_without_one_is_tried_by_the_tests_of_those_that_import_it(tmp_path):
    files = {
        "plugins/module_utils/_deep.py": "",
        "plugins/module_utils/_plain.py": "from . import _deep",
        "plugins/module_utils/_own.py": "from ._plain import x",
        "plugins/module_utils/_above.py": "from ._own import x",
        "tests/unit/plugins/module_utils/test_own.py": "",
        "tests/unit/plugins/module_utils/test_above.py": "",
        "tests/unit/plugins/modules/test_it.py": "from ansible_collections.b.n.plugins.module_utils._deep import x",
        "plugins/module_utils/_alone.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert mutants.tests_of(tmp_path, "_deep") == [
        "tests/unit/plugins/module_utils/test_own.py",
        "tests/unit/plugins/modules/test_it.py",
    ]
    with pytest.raises(RigError, match="no unit test imports _alone") as caught:
        mutants.measure(tmp_path, "_alone")
    assert caught.value.evidence and "test_alone.py" in caught.value.remedy


def test_every_file_has_tests():
    assert [name for name in mutants.modules(REPOSITORY, []) if not mutants.tests_of(REPOSITORY, name)] == []


def test_a_file_that_is_not_there():
    with pytest.raises(RigError, match="has no guards") as caught:
        mutants.modules(REPOSITORY, ["guards"])
    assert "_guards" in caught.value.evidence and caught.value.remedy


def test_shares(capsys):
    assert mutants.Score(199, 200).share == "99 %" and mutants.Score(0, 0).share == "-"
    mutants.table({"_good": mutants.Score(9, 10), "_bad": mutants.Score(1, 10)})
    lines = capsys.readouterr().out.splitlines()
    assert lines[3:] == ["| _bad | 10 | 1 | 10 % |", "| _good | 10 | 9 | 90 % |", "| all | 20 | 10 | 50 % |"]
