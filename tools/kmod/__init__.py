# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""Kernels and their headers from the distribution's archive, for building and testing the kernel module."""
