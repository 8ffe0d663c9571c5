# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""The selftests of the kernel module, and what each needs of the machine that it runs in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from . import boot, debug, kernels

HERE = kernels.REPO / "tests/kmod"
TIMEOUT = 900.0  # a quiet machine needs 45; a busy one that emulates, many times that


@dataclass(frozen=True)
class Selftest:
    """A program of tests/kmod, and the machine for it."""

    name: str
    what: str
    program: str
    environment: Mapping[str, str] = field(default_factory=dict)
    iommu: bool = False
    memory: int = 512
    wanted: Sequence[str] = boot.WANTED
    qemu: bool = False
    helpers: Sequence[str] = ()  # modules in HERE
    sample: bool = False  # the kernel's own sample of an emulated device
    only: str = ""  # the series that it runs on, if not on all
    gic: str = ""  # the interrupt controller of an arm64 machine; without one, the test is for x86

    def runs_on(self, kernel: kernels.Kernel) -> bool:
        """Whether this kernel has what the test is about."""
        return self.only in ("", kernel.series) and bool(self.gic) == kernel.arm64

    def machine(self, kernel: kernels.Kernel, module: Path) -> boot.Machine:
        """The machine that runs it with this build of the module."""
        samples = [kernels.build_helper(kernel, HERE / name) for name in self.helpers]
        if self.sample:
            samples.append(kernels.build_sample(kernel))
        return boot.Machine(
            kernel,
            module,
            HERE / self.program,
            f"{self.name}-{kernel.series}",
            self.environment,
            TIMEOUT,
            iommu=self.iommu,
            memory=self.memory,
            wanted=self.wanted,
            qemu=self.qemu,
            samples=samples,
            gic=self.gic,
        )


SELFTESTS = (
    Selftest("selftest", "without an IOMMU", "selftest.c", helpers=("late_iommu.c",)),
    Selftest(
        "selftest-iommu", "with an IOMMU", "selftest.c", {"selftest": "iommu"}, iommu=True, helpers=("late_iommu.c",)
    ),
    Selftest("pin", "with /dev/noiommu", "pin_selftest.c", memory=1024, wanted=(*boot.WANTED, "loop")),
    Selftest(
        "pin-bounce",
        "with /dev/noiommu, swiotlb=force",
        "pin_selftest.c",
        {"swiotlb": "force"},
        memory=1024,
        wanted=(*boot.WANTED, "loop"),
    ),
    Selftest("vfio", "with clients of VFIO", "vfio_selftest.c", memory=1024, qemu=True, helpers=("page_type.c",)),
    # The sample is of the source of 6.1
    Selftest(
        "mdev", "with an emulated device", "mdev_selftest.c", wanted=(*boot.WANTED, "mdev"), sample=True, only="6.1"
    ),
    Selftest("cdev", "with VFIO's character devices", "cdev_selftest.c", only=debug.CDEV),
    Selftest("selftest", "without an IOMMU", "selftest.c", helpers=("late_iommu.c",), gic="3"),
    Selftest("pin", "with /dev/noiommu", "pin_selftest.c", memory=1024, wanted=(*boot.WANTED, "loop"), gic="3"),
    Selftest("its", "with clients of VFIO, and an ITS for MSIs", "vfio_selftest.c", {"msi": "its"}, gic="3"),
    Selftest("v2m", "with clients of VFIO, and GICv2m for MSIs", "vfio_selftest.c", {"msi": "v2m"}, gic="2"),
)
