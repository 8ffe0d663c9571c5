# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whatever a host says, a parser returns something or raises the collection's own error.

A few examples of each in make unit; make fuzz tries NOIOMMU_FUZZ_EXAMPLES of each, and says how many there were. What
was found to fail is kept in .cache/fuzz, and is tried first by the next run.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.fs import Root
from ansible_collections.baremetal.noiommu.tests.fuzz.mutation import changed, mutated
from ansible_collections.baremetal.noiommu.tests.fuzz.parsers import PARSERS, OfBytes, OfData, OfFile, OfText, lay_out
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.database import DirectoryBasedExampleDatabase

EXAMPLES = int(os.environ.get("NOIOMMU_FUZZ_EXAMPLES", "25"))
FOUND = Path(__file__).parents[2] / ".cache" / "fuzz"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Root]:
    before = os.fsync
    os.fsync = lambda handle: None  # nobody cuts the power here
    yield lay_out(tmp_path_factory.mktemp("host"))
    os.fsync = before


def trial(name: str, root: Root) -> Callable[[bytes, int], Any]:
    """Return what tries one mutant of a sample."""
    parser = PARSERS[name]

    def of_file(program: bytes, sample: int) -> Any:
        assert isinstance(parser, OfFile)
        text = parser.samples[sample % len(parser.samples)]
        Path(root.path(parser.path)).write_bytes(mutated(text if isinstance(text, bytes) else text.encode(), program))
        return parser.call(root)

    def of_value(program: bytes, sample: int) -> Any:
        value: Any = parser.samples[sample % len(parser.samples)]
        if isinstance(parser, OfData):
            return parser.call(changed(value, program))
        if isinstance(parser, OfText):
            return parser.call(mutated(value.encode(), program).decode("utf-8", "surrogateescape"))
        assert isinstance(parser, OfBytes)
        return parser.call(mutated(value, program))

    return of_file if isinstance(parser, OfFile) else of_value


@pytest.mark.parametrize("name", PARSERS)
def test_no_mutant_brings_a_parser_down(
    name: str, root: Root, capsys: pytest.CaptureFixture[str], record_property: Callable[[str, object], None]
) -> None:
    attempt, count = trial(name, root), 0
    attempt(b"", 0)  # the sample itself is one that it takes

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=DirectoryBasedExampleDatabase(FOUND),
        suppress_health_check=list(HealthCheck),
        phases=[Phase.reuse, Phase.generate, Phase.shrink],
    )
    @given(st.binary(max_size=32), st.integers(0, 3))
    def mutants(program: bytes, sample: int) -> None:
        nonlocal count
        count += 1
        try:
            attempt(program, sample)
        except HostError as exc:
            assert exc.code and exc.message
        capsys.readouterr()

    mutants()
    parser = PARSERS[name]
    if isinstance(parser, OfFile):
        text = parser.samples[0]
        Path(root.path(parser.path)).write_bytes(text if isinstance(text, bytes) else text.encode())
    record_property("mutants", count)
