# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The shape of every refusal and failure of this collection: cause, evidence, remedy."""

from __future__ import annotations

import errno
from typing import Any


class HostError(Exception):
    """A failure an operator can act on.

    ``code`` is stable and machine-readable, ``message`` names the cause in one sentence, ``evidence`` lists what
    was seen on the host (path and value), ``remedy`` says what to do about it.
    """

    def __init__(
        self,
        code: str,
        message: str,
        evidence: list[str] | None = None,
        remedy: str = "",
        errno: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.evidence = list(evidence or [])
        self.remedy = remedy
        self.errno = errno

    def as_dict(self) -> dict[str, Any]:
        """Return the shape used in module results and in the preflight verdict's refusals."""
        return {"code": self.code, "message": self.message, "evidence": self.evidence, "remedy": self.remedy}

    def as_failure(self) -> dict[str, Any]:
        """Return the result of a module or an action that failed."""
        return {"msg": str(self), "refusals": [self.as_dict()]}

    def __str__(self) -> str:
        text = self.message
        if self.evidence:
            text += " Evidence: " + "; ".join(self.evidence) + "."
        if self.remedy:
            text += " Remedy: " + self.remedy
        return text


class Refused(HostError):
    """Several refusals at once, so that an operator sees all of them and not one per run."""

    def __init__(self, refusals: list[HostError]) -> None:
        first = refusals[0]
        super().__init__(first.code, first.message, first.evidence, first.remedy)
        self.refusals = refusals

    def as_failure(self) -> dict[str, Any]:
        """Return the result with all refusals."""
        return {"msg": str(self), "refusals": [refusal.as_dict() for refusal in self.refusals]}

    def __str__(self) -> str:
        if len(self.refusals) == 1:
            return str(self.refusals[0])
        lines = ["%d) %s" % (number, refusal) for number, refusal in enumerate(self.refusals, 1)]
        return "Refused for %d reasons: %s" % (len(lines), " ".join(lines))


def errno_text(exc: OSError) -> str:
    """Return why a system call failed, with the symbolic name of its errno."""
    name = errno.errorcode.get(exc.errno or 0, "?")
    return "%s (%s)" % (exc.strerror, name)
