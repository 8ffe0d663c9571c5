# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Signatures of archives, by the real gpg."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Iterator

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._dkms import archive as archives
from ansible_collections.baremetal.noiommu.tests.unit.support.dkms_action import K1, Action, name_of

pytestmark = pytest.mark.usefixtures("no_base")

# --- signatures: by the real gpg ---


@pytest.fixture(scope="module")
def gnupg(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home of GnuPG with one key, and that key in keys.gpg."""
    home = Path(tempfile.mkdtemp(prefix="gpg"))  # a short path: there is a socket in it
    gpg(home, "--pinentry-mode", "loopback", "--passphrase", "", "--quick-gen-key", "builder", "ed25519", "sign")
    (home / "keys.gpg").write_bytes(gpg(home, "--export"))
    yield home
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False)
    shutil.rmtree(home, ignore_errors=True)


def gpg(home: Path, *options: str) -> bytes:
    command = ["gpg", "--homedir", str(home), "--batch", "--quiet", *options]
    return subprocess.run(command, check=True, capture_output=True).stdout


class Keyring:
    """Runs of the action with a keyring and one archive, signed."""

    def __init__(self, source: str, kept: str, gnupg: Path) -> None:
        self.path = Path(kept, name_of(source, K1))
        gpg(gnupg, "--detach-sign", str(self.path))
        args = {"source": source, "build": "prebuilt", "archives": kept, "archive_keyring": str(gnupg / "keys.gpg")}
        self.action = Action(args, [{"changed": True, "archives_needed": [K1]}, {"changed": True}])

    def refused(self) -> str:
        result = self.action.run()
        assert result["refusals"][0]["code"] == "archive_signature" and self.action.sent == []
        return result["refusals"][0]["evidence"][0]

    def replace(self, content: bytes) -> None:
        """Put another archive in its place, with its checksum."""
        self.path.write_bytes(content)
        Path(str(self.path) + ".sha256").write_text(archives.sha256(content))


@pytest.fixture
def keyring(source: str, kept: str, gnupg: Path) -> Keyring:
    return Keyring(source, kept, gnupg)


def test_what_a_key_of_the_keyring_signed_is_sent(keyring: Keyring) -> None:
    assert keyring.action.run()["changed"] and keyring.action.sent == [b"content"]


def test_what_nobody_signed_is_not_sent(keyring: Keyring) -> None:
    keyring.replace(b"evil")
    assert "BAD signature" in keyring.refused()


def test_without_a_signature_nothing_is_sent(keyring: Keyring) -> None:
    Path(str(keyring.path) + ".sig").unlink()
    assert "no %s.sig or .asc" % keyring.path in keyring.refused()


def test_without_gpgv_nothing_is_sent(keyring: Keyring, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert "gpgv" in keyring.refused()


@pytest.mark.parametrize("first, during", [(b"evil", b"content"), (b"content", b"evil")])
def test_the_bytes_that_are_sent_are_those_that_were_verified(
    keyring: Keyring, monkeypatch: pytest.MonkeyPatch, first: bytes, during: bytes
) -> None:
    """Somebody who can write there exchanges the archive while gpgv runs, and back afterwards."""
    run = subprocess.run

    def race(*argv: Any, check: bool = False, **options: Any) -> Any:
        keyring.replace(during)
        try:
            return run(*argv, check=check, **options)
        finally:
            keyring.replace(first)

    keyring.replace(first)
    monkeypatch.setattr(subprocess, "run", race)
    if first == b"evil":
        keyring.refused()
    else:
        assert keyring.action.run()["changed"] and keyring.action.sent == [b"content"]
