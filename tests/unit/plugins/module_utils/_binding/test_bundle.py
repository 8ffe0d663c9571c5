# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The program on the host is the same, whatever loaded the modules that it is made of."""

from __future__ import annotations

import importlib
import importlib.util
from types import SimpleNamespace

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding import bundle


def test_a_loader_may_have_no_source_before_it_has_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Mitogen's, which asks the control node for it then."""
    expected = bundle.files()
    find, loaded = importlib.util.find_spec, set()

    def late(name: str) -> SimpleNamespace:
        loader = find(name).loader
        return SimpleNamespace(
            loader=SimpleNamespace(get_source=lambda full: loader.get_source(full) if full in loaded else None)
        )

    monkeypatch.setattr(importlib.util, "find_spec", late)
    monkeypatch.setattr(importlib, "import_module", loaded.add)
    assert bundle.files() == expected and loaded


def test_a_module_without_source_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match=r"no source of ansible_collections\.baremetal"):
        bundle.files()
