# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Records: written and read again, and refused with what is wrong with them."""

from __future__ import annotations

import operator

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.records import dump_json, load_record, sift
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.schema import Problem, fields, text
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree

PATH = "/var/lib/noiommu/some.json"


def load(tree: Tree) -> str | None:
    return load_record(tree.root, PATH, operator.itemgetter("key"), "It is damaged.", "Mend it.")


def test_a_record_that_does_not_fit_its_schema_is_damaged(tree: Tree) -> None:
    tree.file(PATH, dump_json({"key": 5}))
    with pytest.raises(HostError) as caught:
        load_record(tree.root, PATH, dict, "It is damaged.", "Mend it.", fields({"key": text()}))
    assert caught.value.evidence == [PATH + ": key: expected a text, found 5"]


def test_one_bad_entry_does_not_cost_the_others() -> None:
    assert sift(["a", 5, "b", None], text(), "names") == (
        ["a", "b"],
        [Problem("names[1]", "expected a text, found 5"), Problem("names[3]", "expected a text, found nothing")],
    )


def test_what_was_written_is_read(tree: Tree) -> None:
    assert load(tree) is None
    tree.file(PATH, dump_json({"key": "value"}))
    assert load(tree) == "value"


@pytest.mark.parametrize(
    "text, seen",
    [
        ("{", "Expecting property name"),
        ("[]", "expected a mapping"),
        ('{"key": "value"}', "version None, expected 1"),
        ('{"key": "value", "version": 2}', "version 2, expected 1"),
        ('{"version": 1}', "no key 'key'"),
        (None, "it cannot be read"),
        ("[" * 100000, ""),  # what is seen depends on the Python
        ('{"version": 1, "key": NaN}', "NaN is not a number"),
        ('{"version": 1, "key": -Infinity}', "-Infinity is not a number"),
        ('{"version": 1, "key": %s}' % ("9" * 5000), ""),
        ('"\\ud800"', "expected a mapping"),
    ],
)
def test_a_damaged_record_is_refused(tree: Tree, text: str | None, seen: str) -> None:
    if text is None:
        tree.at(PATH).mkdir(parents=True)
    else:
        tree.file(PATH, text)
    with pytest.raises(HostError) as caught:
        load(tree)
    assert (caught.value.code, caught.value.message, caught.value.remedy) == ("record", "It is damaged.", "Mend it.")
    assert caught.value.evidence[0].startswith("%s: %s" % (PATH, seen))
