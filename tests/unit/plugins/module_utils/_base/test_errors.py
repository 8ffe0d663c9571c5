# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a failing module says: every reason, in words and as data."""

from __future__ import annotations

from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError, Refused

ONE = HostError("one", "First.", evidence=["/a: 1"], remedy="Mend it.")
TWO = HostError("two", "Second.")


def test_one_reason() -> None:
    assert ONE.as_failure() == {"msg": "First. Evidence: /a: 1. Remedy: Mend it.", "refusals": [ONE.as_dict()]}
    assert Refused([ONE]).as_failure() == ONE.as_failure()


def test_several_reasons() -> None:
    assert Refused([ONE, TWO]).as_failure() == {
        "msg": "Refused for 2 reasons: 1) First. Evidence: /a: 1. Remedy: Mend it. 2) Second.",
        "refusals": [ONE.as_dict(), TWO.as_dict()],
    }
