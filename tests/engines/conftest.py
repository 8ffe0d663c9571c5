# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Simulated hosts for the engines; tests/engines/run makes the namespaces that they live in."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Iterator

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "bench")]

from simulated import PAGES, Fleet, addresses, settle  # noqa: E402

HOSTS = 4


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Converged hosts."""
    if "NOIOMMU_RUNNER" not in os.environ:
        pytest.fail("run tests/engines/run, which makes namespaces first")
    work = tmp_path_factory.mktemp("fleet")
    settle(work)
    yield Fleet(work, Path(sys.executable).parent, HOSTS)


class Host:
    """A host as its files show it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._pages = root / PAGES

    def drift(self) -> None:
        """Lose some pages: of all that a deploy changes, these need no more than a file."""
        self._pages.write_text("960\n")

    @property
    def is_mended(self) -> bool:
        """Whether it has as many as declared."""
        return self._pages.read_text().strip() == "1024"


@pytest.fixture
def hosts(fleet: Fleet) -> dict[str, Host]:
    """Return them by name."""
    return {f"host{number:04d}": Host(fleet.work / "root" / ip) for number, ip in enumerate(addresses(HOSTS))}
