# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""What git knows of the paths that a proof rests on."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rig.common import RigError

# What is written for people proves nothing, and nothing proves it.
NOT_PROSE = ":(exclude,glob)**/*.md"


@dataclass(frozen=True)
class Change:
    """Files that differ from what was proven, and since when."""

    files: tuple[str, ...]
    since: int  # committer's time of the first commit that is not proven


class History:
    """The commits of the clone that `root` is."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._first: dict[str, int] = {}

    def absent(self) -> str:
        """Why these files have no history; empty if they have one."""
        try:
            top = self._git("rev-parse", "--show-toplevel").strip()
        except RigError as exc:
            return f"this is no clone that git can read ({exc.evidence or exc.cause})"
        if Path(top).resolve() != self.root.resolve():
            return f"this is no clone of its own, but lies in that of {top}"
        return ""

    def lacking(self) -> str:
        """Why git cannot say what changed; empty if it can."""
        absent = self.absent()
        if absent:
            return absent
        if self._git("rev-parse", "--is-shallow-repository").strip() == "true":
            return "this clone is shallow; `git fetch --unshallow` gets the rest of its history"
        return ""

    def head(self) -> str:
        """The commit that is checked out, in full."""
        return self._git("rev-parse", "HEAD").strip()

    def knows(self, commit: str) -> bool:
        """Whether a commit is in this clone."""
        return self._run("cat-file", "-e", commit + "^{commit}").returncode == 0

    def time(self, commit: str = "HEAD") -> int:
        """When it was committed, in seconds."""
        return int(self._git("show", "--no-patch", "--format=%ct", commit))

    def first(self, path: str) -> int:
        """When a path was first committed. A new one is as old as HEAD; for one that does not exist, 0."""
        if path not in self._first:
            times = self._git("log", "--format=%ct", "--", path).split()
            new = self.time() if (self.root / path).exists() else 0
            self._first[path] = min(map(int, times), default=new)
        return self._first[path]

    def changed(self, commit: str, paths: Sequence[str]) -> Change | None:
        """What differs between a commit and HEAD, or nothing."""
        files = self._names("diff", "--name-only", "--no-renames", commit, "HEAD", "--", *paths, NOT_PROSE)
        if not files:
            return None
        times = self._git("log", "--format=%ct", f"{commit}..HEAD", "--", *files).split()
        return Change(files, min(map(int, times), default=self.time()))

    def uncommitted(self, paths: Sequence[str]) -> tuple[str, ...]:
        """Files that are changed or new, and in no commit."""
        return tuple(
            sorted(
                {
                    *self._names("diff", "--name-only", "--no-renames", "HEAD", "--", *paths, NOT_PROSE),
                    *self._names("ls-files", "--others", "--exclude-standard", "--", *paths, NOT_PROSE),
                }
            )
        )

    def committed(self, path: str) -> str:
        """A file as HEAD has it; empty if it does not."""
        done = self._run("show", f"HEAD:{path}")
        return done.stdout if done.returncode == 0 else ""

    def _names(self, *arguments: str) -> tuple[str, ...]:
        return tuple(self._git(arguments[0], "-z", *arguments[1:]).split("\0")[:-1])

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                ["git", "-C", str(self.root), *arguments], capture_output=True, text=True, check=False
            )
        except OSError as exc:
            raise RigError("git cannot be run", str(exc), "install git") from exc

    def _git(self, *arguments: str) -> str:
        done = self._run(*arguments)
        if done.returncode != 0:
            raise RigError(
                f"git {arguments[0]} failed with exit code {done.returncode}",
                done.stderr.strip(),
                "run it by hand: git " + " ".join(arguments),
            )
        return done.stdout
