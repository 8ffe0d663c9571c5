# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One whole deploy and one whole rollback, in which every step that changes the host is counted."""
from __future__ import annotations

import json

from faults import HOST, POINTS, counted, files, snapshot
from live import changes_since_baseline


def test_every_step_of_a_deploy_and_a_rollback_is_known():
    snapshot("save", "fresh")
    found = {"deploy": counted("deploy")}
    found["files"] = files()
    snapshot("save", "deployed")
    found["rollback"] = counted("rollback")
    assert changes_since_baseline(HOST) == []
    POINTS.write_text(json.dumps(found, indent=1), encoding="utf-8")
    for name in ("deploy", "rollback"):
        assert len(found[name]["steps"]) > 20 and len(found[name]["tasks"]) >= 5, found[name]
