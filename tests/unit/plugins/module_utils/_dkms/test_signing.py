# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later


from __future__ import annotations

import base64
import gzip
import lzma

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._dkms import signing as _signing
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_dkms import KERNEL, build_host
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree

EFIVARS = "/sys/firmware/efi/efivars/"
SECURE_BOOT = EFIVARS + "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
SHIM = "-605dab50-e046-4300-abb6-3dd810dd8b23"
ATTRIBUTES = b"\x06\0\0\0"
SIG_ENFORCE = "/sys/module/module/parameters/sig_enforce"

# As `openssl req -new -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256` makes it, with DKMS's subject.
CERTIFICATE = base64.b64decode("""
MIIBmjCCAUGgAwIBAgIUdIo9WIQRhn5xZyyPv2bGhs7ZA4MwCgYIKoZIzj0EAwIwIjEgMB4GA1UE
AwwXREtNUyBtb2R1bGUgc2lnbmluZyBrZXkwIBcNMjYxMTIzMDMwMTE0WhgPMjEyNjEwMzAwMzAx
MTRaMCIxIDAeBgNVBAMMF0RLTVMgbW9kdWxlIHNpZ25pbmcga2V5MFkwEwYHKoZIzj0CAQYIKoZI
zj0DAQcDQgAEG3mUiunOdfi6Knshh4Q4DduYSeTLnu5fkyLPNIOe6Hfw3l4sS7xk2J6hiujHQHvT
GHuRXU7U2sn6tbXIBjqOwaNTMFEwHQYDVR0OBBYEFMThXj0teKcKV8r5BnM0zMty9TxNMB8GA1Ud
IwQYMBaAFMThXj0teKcKV8r5BnM0zMty9TxNMA8GA1UdEwEB/wQFMAMBAf8wCgYIKoZIzj0EAwID
RwAwRAIgP5b7nuO/Ms57NeFlhCHu0X46vHLo3gNHZhqKae4K7FgCIByVbKZ8ieXF94S7mKswq8SJ
LeK379MFaly1bOoT6jm6
""")
KEY_ID = "c4e15e3d2d78a70a57caf9067334cccb72f53c4d"
SERIAL = "748a3d588411867e71672c8fbf66c686ced90383"
TRUSTED = "asymmetri DKMS module signing key: %s: X509.rsa 12345678 []" % KEY_ID


@pytest.fixture
def host(tree: Tree) -> Tree:
    """A UEFI host that loads signed modules only, and has DKMS's key."""
    build_host(tree)
    tree.file(SECURE_BOOT, ATTRIBUTES + b"\1")
    tree.file(SIG_ENFORCE, "Y")
    tree.file("/var/lib/dkms/mok.key", "secret")
    tree.file("/var/lib/dkms/mok.pub", CERTIFICATE)
    tree.file("/proc/keys", "asymmetri Debian Secure Boot CA: 6cce: X509.rsa 6cce []")
    for program in ("openssl", "mokutil"):
        tree.file("/usr/bin/" + program)
    return tree


def refusal(tree: Tree):
    return _signing.refusal(tree.root, _signing.read(tree.root))


def test_secure_boot(tree: Tree) -> None:
    assert _signing.secure_boot(tree.root) is False
    tree.dir("/sys/firmware/efi")
    assert _signing.secure_boot(tree.root) is None
    tree.file(SECURE_BOOT, ATTRIBUTES + b"\0")
    assert _signing.secure_boot(tree.root) is False
    tree.file(SECURE_BOOT, ATTRIBUTES + b"\1")
    assert _signing.secure_boot(tree.root) is True


def test_nothing_is_demanded_where_unsigned_modules_load(host: Tree) -> None:
    host.file(SIG_ENFORCE, "N")
    signing = _signing.read(host.root)
    assert not signing.enforced and signing.enforced_by == [] and refusal(host) is None


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (SIG_ENFORCE, "Y"),
        ("/sys/kernel/security/lockdown", "none [integrity] confidentiality"),
        ("/boot/config-" + KERNEL, "CONFIG_MODULE_SIG_FORCE=y\nCONFIG_X=y"),
    ],
)
def test_each_way_of_enforcing_is_seen(host: Tree, path: str, text: str) -> None:
    host.file(SIG_ENFORCE, "N")
    host.file(path, text)
    signing = _signing.read(host.root)
    assert signing.enforced and len(signing.enforced_by) == 1
    assert refusal(host) is not None


def test_the_kernels_name_for_a_key(host: Tree) -> None:
    assert _signing.key_id(CERTIFICATE) == KEY_ID
    without = CERTIFICATE.replace(b"\x06\x03\x55\x1d\x0e", b"\x06\x03\x55\x1d\x7f")
    assert _signing.key_id(without) == SERIAL
    assert _signing.key_id(b"x") == "not a certificate"


def test_a_key_in_the_kernels_keyrings_is_trusted(host: Tree) -> None:
    host.file("/proc/keys", TRUSTED)
    signing = _signing.read(host.root)
    assert (signing.enrolled, signing.enrol_with) == ("yes", []) and refusal(host) is None
    assert (signing.key, signing.certificate) == _signing.DKMS_PAIR


def test_an_unknown_key_is_refused_with_every_step(host: Tree) -> None:
    error = refusal(host)
    assert error.code == "key_not_enrolled" and "trust the key" in error.message
    assert "mokutil --import /var/lib/dkms/mok.pub" in error.remedy and "MokManager" in error.remedy
    assert "openssl" not in error.remedy
    assert SIG_ENFORCE + ": Y" in error.evidence and "/proc/keys: no key " + KEY_ID in error.evidence


def test_a_queued_enrolment_is_pending(host: Tree) -> None:
    host.file(EFIVARS + "MokNew" + SHIM, ATTRIBUTES + b"list" + CERTIFICATE)
    error = refusal(host)
    assert error.code == "key_pending" and "Enroll MOK" in error.remedy and "mokutil" not in error.remedy
    assert _signing.read(host.root).enrolled == "pending" and _signing.in_firmware(host.root, CERTIFICATE)


def test_a_missing_key_can_be_made_without_changing_anything_else(host: Tree) -> None:
    host.remove("/var/lib/dkms/mok.key")
    error = refusal(host)
    assert "no key to sign with yet" in error.message or "does not trust" in error.message
    assert "-keyout /var/lib/dkms/mok.key -outform DER -out /var/lib/dkms/mok.pub" in error.remedy
    host.remove("/var/lib/dkms/mok.pub")
    host.file("/usr/sbin/dkms", "    generate_mok)")
    error = refusal(host)
    assert "no key to sign with yet" in error.message and "dkms generate_mok; mokutil --import" in error.remedy
    assert _signing.read(host.root).key is None


def test_missing_tools_are_named(host: Tree) -> None:
    host.remove("/usr/bin/mokutil")
    assert "install mokutil;" in refusal(host).remedy
    host.remove("/var/lib/dkms/mok.pub")
    host.remove("/usr/bin/openssl")
    assert "install openssl and mokutil;" in refusal(host).remedy


def test_where_no_key_can_be_enrolled_that_is_said(host: Tree) -> None:
    host.remove("/sys/firmware/efi")
    assert "no key can be enrolled" in refusal(host).remedy


def test_enrolled_keys_count_only_under_secure_boot(host: Tree) -> None:
    host.file(SECURE_BOOT, ATTRIBUTES + b"\0")
    host.file(EFIVARS + "MokListRT" + SHIM, ATTRIBUTES + CERTIFICATE)
    error = refusal(host)
    assert "only with Secure Boot on" in error.remedy and "MokListRT: has it" in error.evidence[-1]


def test_where_the_keyrings_are_out_of_sight_the_firmware_decides(host: Tree) -> None:
    host.remove("/proc/keys")
    assert _signing.read(host.root).enrolled == "no"
    host.file("/sys/firmware/efi/mok-variables/MokListRT1", b"list" + CERTIFICATE)
    assert _signing.read(host.root).enrolled == "yes"


def test_lockdown_is_mentioned_beside_the_key(host: Tree) -> None:
    host.file("/sys/kernel/security/lockdown", "none [integrity] confidentiality")
    host.file(EFIVARS + "MokSBStateRT" + SHIM, ATTRIBUTES + b"\1")
    error = refusal(host)
    assert "does not suffice" in error.remedy and "MokSBStateRT: 1, shim does not validate" in error.evidence


def test_dkmss_settings_come_first(host: Tree) -> None:
    settings = '# mok_certificate=/no\nmok_signing_key="/keys/a.key"\nmok_certificate=/keys/a'
    host.file("/etc/dkms/framework.conf", settings)
    assert _signing.pair(host.root) == ("/keys/a.key", "/keys/a")
    host.file("/etc/dkms/framework.conf.d/site.conf", "mok_certificate='/keys/b.pem'")
    host.file("/etc/dkms/framework.conf.d/site.bak", "mok_certificate=/no")
    assert _signing.pair(host.root) == ("/keys/a.key", "/keys/b.pem")
    pem = b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(CERTIFICATE) + b"-----END CERTIFICATE-----\n"
    host.file("/keys/b.pem", pem)
    host.file("/proc/keys", TRUSTED)
    assert _signing.read(host.root).enrolled == "no"  # the certificate alone signs nothing
    host.file("/keys/a.key", "secret")
    assert _signing.read(host.root).enrolled == "yes"


def test_a_key_in_a_token_counts_as_there(host: Tree) -> None:
    host.file("/etc/dkms/framework.conf", "mok_signing_key=pkcs11:object=mok")
    host.file("/proc/keys", TRUSTED)
    assert _signing.read(host.root).enrolled == "yes"


def test_ubuntu_has_a_key_of_its_own(host: Tree) -> None:
    host.file("/etc/os-release", "ID=ubuntu\nID_LIKE=debian")
    assert _signing.pair(host.root)[1] == "/var/lib/shim-signed/mok/MOK.der"


@pytest.mark.parametrize("length", [1, 2, 4, 60, 200, len(CERTIFICATE) - 160])
@pytest.mark.parametrize("enforced", [True, False])
def test_a_certificate_that_is_cut_short_is_told(host: Tree, length: int, enforced: bool) -> None:
    host.file("/var/lib/dkms/mok.pub", CERTIFICATE[:length])
    host.file(SIG_ENFORCE, "Y" if enforced else "N")
    error = refusal(host)
    if not enforced:
        assert error is None
        return
    assert (
        error.code in ("key_damaged", "key_not_enrolled")
        and "/var/lib/dkms/mok.pub" in error.remedy + error.evidence[0]
    )
    if error.code == "key_damaged":
        assert "generate_mok" in error.remedy or "openssl req" in error.remedy


@pytest.mark.parametrize(
    "text", [b"-----BEGIN CERTIFICATE-----\nabc\n-----END", b"-----BEGIN CERTIFICATE----------END"]
)
def test_a_certificate_in_text_that_is_damaged(host: Tree, text: bytes) -> None:
    host.file("/var/lib/dkms/mok.pub", text)
    assert refusal(host) is not None


def test_whether_a_module_is_signed() -> None:
    signed = b"\x7fELF" + _signing.MAGIC
    assert _signing.is_signed(signed, "a.ko") is True and _signing.is_signed(b"\x7fELF", "a.ko") is False
    for suffix, pack in ((".xz", lzma.compress), (".gz", gzip.compress)):
        assert _signing.is_signed(pack(signed), "a.ko" + suffix) is True
        assert _signing.is_signed(pack(b"\x7fELF"), "a.ko" + suffix) is False
        for cut in range(len(pack(signed))):
            with pytest.raises(HostError, match="damaged"):
                _signing.is_signed(pack(signed)[:cut], "a.ko" + suffix)
    assert _signing.is_signed(b"?", "a.ko.zst") is None


def test_a_module_that_fills_the_memory_is_refused() -> None:
    with pytest.raises(HostError) as caught:
        _signing.uncompressed(lzma.compress(bytes(65 << 20)), "a.ko.xz")
    assert "more than 64 MiB" in caught.value.evidence[0]
