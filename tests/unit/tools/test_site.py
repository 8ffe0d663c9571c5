# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pages of a clone become those of the site, with links that work there."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[3] / "docs/site/stage.py"
spec = importlib.util.spec_from_file_location("stage", SOURCE)
stage = importlib.util.module_from_spec(spec)
spec.loader.exec_module(stage)

PAGES = {
    "README.md": "# Overview\n",
    "SECURITY.md": "# Policy\n",
    "docs/README.md": "# Documentation\n\n## For all\n\n- [Guide](guide.md): all\n- [Start](../README.md)\n",
    "docs/guide.md": "# Guide\n",
    "roles/access/README.md": "# access\n",
    "tools/vm": "a program\n",
    "docs/images/a.svg": "<svg/>\n",
}


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A repository with a page of every kind."""
    for name, text in PAGES.items():
        path = tmp_path / "clone" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path / "clone"


def staged(clone: Path, guide: str) -> str:
    """Return the guide as it is in the site."""
    (clone / "docs/guide.md").write_text(guide, encoding="utf-8")
    stage.Stage(clone, clone.parent / "site").write()
    return (clone.parent / "site/guide.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "link, there",
    [
        ("[a](../README.md#danger)", "[a](overview.md#danger)"),
        ("[a](../SECURITY.md)", "[a](project/security.md)"),
        ("[a](../roles/access/README.md)", "[a](roles/access.md)"),
        ("[a](../roles/access/)", "[a](roles/access.md)"),
        ("[a](../tools/vm)", "[a](files/tools/vm)"),
        ("[`a`](../roles/)", "`a`"),
        ("[a](#here) [b](https://example.com/x)", "[a](#here) [b](https://example.com/x)"),
        ("[![p](images/a.svg)](../README.md)", "[![p](files/docs/images/a.svg)](overview.md)"),
        ("```\n[a](nowhere)\n```", "```\n[a](nowhere)\n```"),
    ],
)
def test_links_lead_to_where_things_are_in_the_site(clone: Path, link: str, there: str) -> None:
    assert staged(clone, link + "\n") == there + "\n"


def test_what_a_page_shows_or_offers_is_there(clone: Path) -> None:
    staged(clone, "![p](images/a.svg) [v](../tools/vm)\n")
    assert (clone.parent / "site/files/docs/images/a.svg").read_text(encoding="utf-8") == "<svg/>\n"
    assert (clone.parent / "site/files/tools/vm").exists()


def test_a_dead_link_is_an_error_that_names_it(clone: Path) -> None:
    with pytest.raises(SystemExit, match=r"docs/guide\.md: nothing\.md#here"):
        staged(clone, "[a](nothing.md#here)\n")


def test_two_pages_of_one_name_are_an_error(clone: Path) -> None:
    (clone / "docs/overview.md").write_text("# Other\n", encoding="utf-8")
    with pytest.raises(SystemExit, match=r"README\.md and docs/overview\.md would both be"):
        staged(clone, "")


def test_the_index_is_the_navigation(clone: Path) -> None:
    staged(clone, "")
    index = (clone.parent / "site/index.md").read_text(encoding="utf-8")
    assert ":caption: For all\n:maxdepth: 1\n\nGuide <guide>\nStart <overview>\n```" in index
    assert "Modules and roles <reference/index>" in index
