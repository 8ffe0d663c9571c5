# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copy the repository's pages to where Sphinx reads them, with links that lead to each other there.

The pages are written to be read in a clone, too. docs/README.md is the first page, and its lists are the navigation: a
page of docs/ that it does not list fails the build, and so does a link to what does not exist.
"""

from __future__ import annotations

import os
import posixpath
import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
INDEX = "docs/README.md"
PAGES = ("docs/*.md", "*.md", "CHANGELOG.rst", "kmod/README.md", "roles/*/README.md")
LINK = re.compile(r"\[((?:[^\[\]]|!\[[^\[\]]*\]\([^()]*\))*)\]\(([^()\s]+)\)")
REFERENCE = "## Reference\n\n- [Modules and roles](reference/index.rst): every option and every value returned\n"
SECTION = re.compile(r"^## (.+)$", re.MULTILINE)


def site_path(page: str) -> str:
    """Return where a page of the repository is in the site, without its suffix."""
    if page == INDEX:
        return "index"
    name = posixpath.splitext(page)[0].lower()
    if name == "readme":
        return "overview"
    if "/" not in name:
        return "project/" + name
    return name.removeprefix("docs/").removesuffix("/readme")


def site_pages(root: Path) -> dict[str, str]:
    """Map each page of the repository to its path in the site."""
    found = {path.relative_to(root).as_posix() for pattern in PAGES for path in root.glob(pattern)}
    pages = {page: site_path(page) + posixpath.splitext(page)[1] for page in sorted(found)}
    by_site: dict[str, str] = {}
    for page, target in pages.items():
        other = by_site.setdefault(posixpath.splitext(target)[0], page)
        if other != page:
            raise SystemExit(f"docs/site/stage.py: {other} and {page} would both be the page {target}")
    return pages


class Stage:
    """The copy that Sphinx reads."""

    def __init__(self, root: Path, into: Path) -> None:
        self.root, self.into = root, into
        self.pages = site_pages(root)
        self.dead: list[str] = []

    def write(self) -> None:
        """Write all pages and the files that they show or offer."""
        for page, target in self.pages.items():
            text = (self.root / page).read_text(encoding="utf-8")
            if page.endswith(".md"):
                text = self.with_links(page, text)
            if page == INDEX:
                text = self.with_navigation(text)
            path = self.into / target
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        if self.dead:
            raise SystemExit("docs/site/stage.py: links that lead nowhere:\n" + "\n".join(self.dead))

    def with_links(self, page: str, text: str) -> str:
        """Return the page with links as they are in the site; code blocks stay as they are."""
        parts = re.split(r"(^```.*?^```$)", text, flags=re.MULTILINE | re.DOTALL)
        parts[::2] = [LINK.sub(lambda match: self._link(page, *match.groups()), part) for part in parts[::2]]
        return "".join(parts)

    def _link(self, page: str, label: str, target: str) -> str:
        label = LINK.sub(lambda match: self._link(page, *match.groups()), label)
        where, _hash, anchor = target.partition("#")
        if not where or re.match(r"[a-z]+:", where):
            return f"[{label}]({target})"
        path = posixpath.normpath(posixpath.join(posixpath.dirname(page), where))
        if (self.root / path).is_dir():
            path = next((known for known in (path + "/README.md",) if known in self.pages), path)
        if path in self.pages:
            there = self.pages[path]
        elif (self.root / path).is_dir():
            return label
        elif (self.root / path).is_file():
            there = "files/" + path
            (self.into / there).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.root / path, self.into / there)
        else:
            self.dead.append(f"  {page}: {target}")
            return label
        relative = posixpath.relpath(there, posixpath.dirname(self.pages[page]) or ".")
        return f"[{label}]({relative}{'#' + anchor if anchor else ''})"

    def with_navigation(self, text: str) -> str:
        """Add one list of pages to the sidebar for each section of the index, and the reference."""
        _head, *parts = SECTION.split(text)
        sections = [(parts[number], LINK.findall(parts[number + 1])) for number in range(0, len(parts), 2)]
        sections.append(("Reference", [("Modules and roles", "reference/index.rst")]))
        trees = []
        for caption, links in sections:
            pages = "".join(f"{label} <{posixpath.splitext(target)[0]}>\n" for label, target in links)
            trees.append(f"```{{toctree}}\n:hidden:\n:caption: {caption}\n:maxdepth: 1\n\n{pages}```\n")
        return "\n".join([text, REFERENCE, *trees])


if __name__ == "__main__":
    destination = Path(sys.argv[1])
    shutil.rmtree(destination, ignore_errors=True)
    os.makedirs(destination)
    Stage(ROOT, destination).write()
