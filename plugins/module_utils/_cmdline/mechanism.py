# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What every mechanism for the kernel command line of the next boot has to say and to do."""

from __future__ import annotations

from typing import Dict, Iterable, List, NamedTuple

from .._base.command import Runner
from .._base.errors import HostError
from .._base.files import RenderedFile
from .._base.fs import Root
from .words import Parameters

# Words by kernel. Where all kernels share one line, its name is the empty string.
Lines = Dict[str, List[str]]


class Original(NamedTuple):
    """What was there before anything of ours."""

    lines: Lines
    source: str | None  # the file that is edited in place, if this mechanism has one and it was there


class BootLoader:
    """One mechanism. Subclasses say how."""

    name = ""
    program = ""  # what makes the files take effect
    places: list[str] = []  # directories that it writes to
    overrides = ""  # where to look when it ended well and the parameters are not there

    def __init__(self, root: Root, runner: Runner) -> None:
        self.root, self.runner = root, runner

    def lines(self) -> Lines:
        """Return the command lines that the next boot gets, from what is really booted."""
        raise NotImplementedError

    def editable(self) -> Lines:
        """Return the lines that a change starts from; what boots is made of them."""
        return self.lines()

    def predicted(self, lines: Lines, edited: Lines) -> Lines:
        """Return what the lines become when what they are made of is edited."""
        return edited

    def source(self) -> str | None:
        """Return the text of the one file that is edited in place, None if there is none or it is not there."""
        return None

    def files(
        self, owner: str, wanted: Parameters | None, lines: Lines, original: Original | None
    ) -> list[RenderedFile]:
        """Return the files for these lines; ``original`` is given where nothing of ours is left."""
        raise NotImplementedError

    def activate(self, lines: Lines) -> None:
        """Have the next boot use the files, or these lines."""
        raise NotImplementedError

    def rewritten_owners(self, owner: str, owners: Iterable[str]) -> list[str]:
        """Return whose parameters are taken off the lines and added again, in this order, when one owner changes."""
        return [owner]

    def run(self, *argv: str) -> str:
        """Run a program; explain its failure."""
        done = self.runner.run(*argv)
        if done.rc != 0:
            said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-4:]
            raise HostError(
                "bootloader",
                "%s failed: %s" % (argv[0], said[-1] if said else "no reason given"),
                evidence=["`%s`: rc %d" % (" ".join(argv), done.rc), *said],
                remedy="Make the command succeed by hand (a full or read-only /boot is the usual reason), then run"
                " again.",
            )
        return done.stdout
