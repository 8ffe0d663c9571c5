# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""Which kernels are taken out of an archive that moves."""

from __future__ import annotations

import pytest

from kmod import kernels

# As Debian's archive looked when headers had come before the image that has to be signed.
BOOKWORM = [
    "linux-headers-6.1.0-55-amd64",
    "linux-headers-6.1.0-56-amd64",
    "linux-headers-6.1.0-57-amd64",
    "linux-headers-6.1.0-57-cloud-amd64",
    "linux-headers-6.1.0-57-common",
    "linux-headers-6.1.0-57-rt-amd64",
    "linux-headers-6.12.118+deb12-amd64",
    "linux-headers-amd64",
    "linux-image-6.1.0-55-amd64",
    "linux-image-6.1.0-56-amd64",
    "linux-image-6.1.0-57-amd64-unsigned",
    "linux-image-6.12.118+deb12-amd64",
    "linux-image-amd64",
]
TRIXIE = [
    "linux-headers-7.3.4+deb13-amd64",
    "linux-headers-7.3.5+deb13-amd64",
    "linux-image-7.3.4+deb13-amd64",
    "linux-binary-7.3.4+deb13-amd64",
    "linux-modules-7.3.4+deb13-amd64",
    "linux-binary-7.3.5+deb13-amd64",
    "linux-image-7.3.5+deb13-amd64",
]


def test_headers_that_run_ahead_of_the_image_are_passed_over_and_named():
    release, passed_over = kernels.newest(BOOKWORM, "6.1", "-amd64", boots=True)
    assert release == "6.1.0-56-amd64"
    assert passed_over == ["6.1.0-57-amd64 has headers, and no linux-image-6.1.0-57-amd64 yet"]


def test_what_is_only_built_for_needs_no_image():
    assert kernels.newest(BOOKWORM, "6.1", "-amd64", boots=False) == ("6.1.0-57-amd64", [])
    assert kernels.newest(BOOKWORM, "6.1", "-cloud-amd64", boots=False) == ("6.1.0-57-cloud-amd64", [])
    assert kernels.newest(BOOKWORM, "6.12", "-amd64", boots=False) == ("6.12.118+deb12-amd64", [])


def test_an_image_in_two_packages_needs_both():
    release, passed_over = kernels.newest(TRIXIE, "7.3", "-amd64", boots=True)
    assert release == "7.3.4+deb13-amd64"
    assert passed_over == ["7.3.5+deb13-amd64 has headers, and no linux-modules-7.3.5+deb13-amd64 yet"]


def test_releases_are_compared_by_their_numbers():
    names = [f"linux-{kind}-6.1.0-{number}-amd64" for kind in ("headers", "image") for number in (9, 10)]
    assert kernels.newest(names, "6.1", "-amd64", boots=True) == ("6.1.0-10-amd64", [])


@pytest.mark.parametrize("names", [[], ["linux-image-6.1.0-56-amd64"], ["linux-headers-6.1.0-57-amd64"]])
def test_no_kernel_that_boots(names):
    release, passed_over = kernels.newest(names, "6.1", "-amd64", boots=True)
    assert release is None and len(passed_over) == sum("headers" in name for name in names)


def test_an_arm64_kernel_needs_headers_of_both_architectures():
    arm64 = ["linux-headers-6.1.0-56-arm64", "linux-headers-6.1.0-58-arm64", "linux-headers-6.1.0-57-cloud-arm64"]
    names = kernels.both_architectures(BOOKWORM, arm64)
    assert names == ["linux-headers-6.1.0-56-arm64", "linux-headers-6.1.0-57-cloud-arm64"]
    assert kernels.newest(names, "6.1", "-arm64", boots=False) == ("6.1.0-56-arm64", [])


class FakeArchive:
    """An archive with these packages."""

    def __init__(self, release, architecture="amd64"):
        self.release = release
        self.packages = BOOKWORM

    def open(self):
        pass

    def names(self, pattern):
        return [name for name in self.packages if kernels.re.fullmatch(pattern, name)]


def test_the_choice_is_said_with_its_reason(monkeypatch, capsys):
    monkeypatch.setattr(kernels, "Archive", FakeArchive)
    assert kernels.find("6.1").release == "6.1.0-56-amd64"
    said = capsys.readouterr().err
    assert "kernel 6.1: 6.1.0-56-amd64" in said and "no linux-image-6.1.0-57-amd64 yet" in said


def test_a_series_that_has_left_the_archive_is_told_with_what_is_there(monkeypatch):
    monkeypatch.setattr(kernels, "Archive", FakeArchive)
    with pytest.raises(kernels.RigError) as caught:
        kernels.find("7.3")
    assert "linux-headers-6.12.118+deb12-amd64" in caught.value.evidence and "RELEASES" in caught.value.remedy


def test_the_kernel_of_a_machine_may_be_older_than_the_newest(monkeypatch):
    monkeypatch.setattr(kernels, "Archive", FakeArchive)
    assert kernels.of_release("6.1.0-55-amd64").release == "6.1.0-55-amd64"
    for gone in ("6.1.0-12-amd64", "5.10.0-1-amd64"):
        with pytest.raises(kernels.RigError) as caught:
            kernels.of_release(gone)
        assert gone in caught.value.cause and "remove the image" in caught.value.remedy
