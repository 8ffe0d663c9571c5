# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one shape of what a module changes on a host."""

from __future__ import annotations

from typing import Any, Protocol, Sequence


class Change(Protocol):
    """A declared change. The constructor reads the host and decides; only :meth:`apply` changes anything."""

    @property
    def changed(self) -> bool:
        """Whether the host differs from what is declared."""

    @property
    def warnings(self) -> Sequence[str]:
        """What the operator must know although nothing failed."""

    def before(self) -> Any:
        """Return the state that the constructor found, as module results show it."""

    def after(self) -> Any:
        """Return the state once :meth:`apply` has run; until then its prediction."""

    def diff(self) -> list[dict[str, str]]:
        """Return the differences in the form that Ansible prints."""

    def apply(self) -> None:
        """Change the host, or restore everything and raise HostError."""
