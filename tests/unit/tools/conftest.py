# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""The rig is a program beside the collection, not part of it: put it on the path."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tools"))
