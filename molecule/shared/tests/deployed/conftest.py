# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is only true of a backend that no host of the scenario has is no test of that scenario."""


def pytest_collection_modifyitems(config, items):
    without_a_host = [item for item in items if item.name.endswith("[NOTSET]")]
    if without_a_host:
        config.hook.pytest_deselected(items=without_a_host)
        items[:] = [item for item in items if item not in without_a_host]
