# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether this kernel loads only signed modules, with which key DKMS signs, and whether the kernel trusts that key.

All of it is read from files: the firmware's variables, the kernel's keyrings, DKMS's settings.
"""

from __future__ import annotations

import base64
import lzma
import re
import zlib
from typing import Any, NamedTuple

from .._base.errors import HostError
from .._base.fs import Root
from .._host import kernels
from .._host.kernel_config import lockdown

EFI = "/sys/firmware/efi"
_SHIM = "605dab50-e046-4300-abb6-3dd810dd8b23"
_GLOBAL = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
_SIG_ENFORCE = "/sys/module/module/parameters/sig_enforce"
_LOCKDOWN = "/sys/kernel/security/lockdown"
_KEYS = "/proc/keys"
NO_CERTIFICATE = "not a certificate"
_LARGEST = 64 << 20  # bytes of a module
MAGIC = b"~Module signature appended~\n"

# What DKMS signs with unless told otherwise, by distribution.
DKMS_PAIR = ("/var/lib/dkms/mok.key", "/var/lib/dkms/mok.pub")
_UBUNTU_PAIR = ("/var/lib/shim-signed/mok/MOK.priv", "/var/lib/shim-signed/mok/MOK.der")

ENROLLED, PENDING, NOT_ENROLLED, UNKNOWN = "yes", "pending", "no", "unknown"
_CONFIRM = "reboot, and at the console choose `Enroll MOK` in MokManager and enter that password"


class Signing(NamedTuple):
    """What the kernel demands, and what DKMS has."""

    enforced: bool
    enforced_by: list[str]
    key: str | None
    certificate: str | None
    enrolled: str  # yes | no | pending | unknown
    enrol_with: list[str]

    def report(self) -> dict[str, Any]:
        """Return it as noiommu_info does."""
        return self._asdict()


def secure_boot(root: Root) -> bool | None:
    """Return whether Secure Boot is on; None if the firmware does not say."""
    if not root.exists(EFI):
        return False
    data = _variable(root, "SecureBoot", _GLOBAL)
    return None if data is None else data[:1] == b"\1"


def read(root: Root, prebuilt: bool = False) -> Signing:
    """Read everything. A prebuilt module was signed elsewhere: then only its archive knows the key."""
    by = _enforced_by(root)
    if prebuilt:
        return Signing(bool(by), by, None, None, UNKNOWN, [])
    key, path = pair(root)
    certificate = certificate_at(root, path)
    state = trust(root, certificate) if certificate is not None else NOT_ENROLLED
    has_key = key.startswith("pkcs11:") or root.exists(key)
    shown = key if has_key else None
    ready = has_key and certificate is not None
    return Signing(
        bool(by),
        by,
        shown,
        path if certificate is not None else None,
        state if ready else NOT_ENROLLED,
        _enrol_with(root, state, key, path, ready),
    )


def pair(root: Root) -> tuple[str, str]:
    """Return where DKMS looks for its key and certificate, present or not: its settings first."""
    found: dict[str, str] = {}
    extra = [name for name in root.listdir("/etc/dkms/framework.conf.d") if name.endswith(".conf")]
    for path in ["/etc/dkms/framework.conf", *("/etc/dkms/framework.conf.d/" + name for name in extra)]:
        text = root.read_text(path) or ""
        found.update(re.findall(r"^\s*(mok_signing_key|mok_certificate)=[\"']?([^\"'\s]+)", text, re.MULTILINE))
    usual = _UBUNTU_PAIR if kernels.read_os(root).id == "ubuntu" and "mok_signing_key" not in found else DKMS_PAIR
    return found.get("mok_signing_key", usual[0]), found.get("mok_certificate", usual[1])


def certificate_at(root: Root, path: str) -> bytes | None:
    """Return a certificate in DER, whichever way it is stored; damaged ones as they are."""
    data = root.read_bytes(path)
    match = re.search(rb"-----BEGIN CERTIFICATE-----(.*?)-----END", data or b"", re.DOTALL)
    try:
        return base64.b64decode(match.group(1)) if match else data or None
    except ValueError:
        return data


def trust(root: Root, certificate: bytes) -> str:
    """Return whether the running kernel verifies modules with a certificate: yes, no, or pending in the firmware."""
    keyrings = root.read_text(_KEYS) or ""
    known = ": %s: X509" % key_id(certificate)
    if known in keyrings:
        return ENROLLED
    if "asymmetri" not in keyrings and secure_boot(root) and certificate in _listed(root, "MokListRT"):
        return ENROLLED  # keyrings out of sight, as in a container
    return PENDING if certificate in (_variable(root, "MokNew", _SHIM) or b"") else NOT_ENROLLED


def in_firmware(root: Root, certificate: bytes) -> bool:
    """Whether shim has a certificate enrolled, or is about to."""
    return certificate in _listed(root, "MokListRT") or certificate in (_variable(root, "MokNew", _SHIM) or b"")


def refusal(root: Root, signing: Signing) -> HostError | None:
    """Return the error for a key that the kernel would not accept."""
    if not signing.enforced or signing.enrolled in (ENROLLED, UNKNOWN):
        return None
    locked = lockdown(root) not in (None, "none")
    also = " That alone does not suffice here: the kernel is locked down as well." if locked else ""
    evidence = [*facts(root, signing), *_seen(root, signing.certificate)]
    damaged = _damage(root, signing)
    if damaged is not None:
        return damaged
    if signing.enrolled == PENDING:
        return HostError(
            "key_pending",
            "This kernel loads signed modules only, and the enrolment of DKMS's key waits for its confirmation.",
            evidence=evidence,
            remedy="Reboot, and at the console choose `Enroll MOK` in MokManager; then run again." + also,
        )
    return HostError(
        "key_not_enrolled",
        "This kernel loads signed modules only, and it does not trust the key that DKMS signs with."
        if signing.certificate
        else "This kernel loads signed modules only, and DKMS has no key to sign with yet.",
        evidence=evidence,
        remedy=_remedy(root, signing) + also,
    )


def _damage(root: Root, signing: Signing) -> HostError | None:
    certificate = certificate_at(root, signing.certificate) if signing.certificate else None
    if certificate is None or key_id(certificate) != NO_CERTIFICATE:
        return None
    return HostError(
        "key_damaged",
        "This kernel loads signed modules only, and the certificate of the key that DKMS signs with is damaged.",
        evidence=["%s: %d bytes, %s" % (signing.certificate, len(certificate), NO_CERTIFICATE), *signing.enforced_by],
        remedy="Restore it from a backup. Without one, move %s and %s away, make new ones (as root: %s), enrol the new"
        " key and run again." % (*pair(root), "; ".join(make_key(root))),
    )


def facts(root: Root, signing: Signing) -> list[str]:
    """Return the state of signing as evidence."""
    state = {True: "on", False: "off", None: "unknown"}[secure_boot(root)]
    lines = ["Secure Boot: " + state, *signing.enforced_by]
    if _variable(root, "MokSBStateRT", _SHIM) in (b"\1", b"\1\0\0\0"):
        lines.append("MokSBStateRT: 1, shim does not validate")
    if signing.certificate:
        lines.append("signing certificate %s, enrolled: %s" % (signing.certificate, signing.enrolled))
    elif signing.enrolled != UNKNOWN:
        lines.append("signing key %s, certificate %s: not both there" % pair(root))
    return lines


def is_signed(content: bytes, name: str) -> bool | None:
    """Whether a module file carries a signature; None if its compression is not known here."""
    plain = uncompressed(content, name)
    return None if plain is None else plain.endswith(MAGIC)


def uncompressed(content: bytes, name: str) -> bytes | None:
    """Return a module as the kernel sees it; None for zstd, which Python reads from 3.14 on only."""
    try:
        if name.endswith(".xz"):
            return _whole(lzma.LZMADecompressor(), content)
        if name.endswith(".gz"):
            return _whole(zlib.decompressobj(wbits=31), content)
    except (lzma.LZMAError, zlib.error, EOFError) as exc:
        raise HostError(
            "module_damaged",
            "A file of the module is damaged.",
            evidence=["%s: %s" % (name, exc)],
            remedy="Run again. If it comes from an archive, remove that where the controller keeps it: the build host"
            " then makes it anew. If it stays so, see whether the filesystem where it was built is full or failing.",
        ) from exc
    return content if name.endswith(".ko") else None


def _whole(stream: Any, content: bytes) -> bytes:
    plain: bytes = stream.decompress(content, _LARGEST)
    if not stream.eof:
        raise EOFError("it ends too early, or holds more than %d MiB" % (_LARGEST >> 20))
    return plain


def key_id(certificate: bytes) -> str:
    """Return what the kernel calls a certificate's key in /proc/keys: its subject key identifier, else its serial."""
    try:
        mark = certificate.find(b"\x06\x03\x55\x1d\x0e")
        if mark >= 0:
            _tag, start, end = _der(certificate, mark + 5)
            _tag, start, end = _der(certificate, start)
            return certificate[start:end].hex()
        _tag, start, _end = _der(certificate, 0)
        _tag, start, _end = _der(certificate, start)
        tag, first, end = _der(certificate, start)
        if tag == 0xA0:  # the optional version comes before the serial number
            _tag, first, end = _der(certificate, end)
    except IndexError:
        return NO_CERTIFICATE
    return certificate[first:end].lstrip(b"\0").hex()


def _der(data: bytes, at: int) -> tuple[int, int, int]:
    """Return tag, start and end of the value at a place in DER; raise IndexError where that is cut short."""
    length, start = data[at + 1], at + 2
    if length & 0x80:
        count = length & 0x7F
        length, start = int.from_bytes(data[start : start + count], "big"), start + count
    if start + length > len(data):
        raise IndexError("the value at %d is cut short" % at)
    return data[at], start, start + length


def _variable(root: Root, name: str, guid: str) -> bytes | None:
    """Return an EFI variable's value."""
    data = root.read_bytes(EFI, "efivars", "%s-%s" % (name, guid))
    return None if data is None else data[4:]  # after four bytes of attributes


def _listed(root: Root, name: str) -> bytes:
    """Return a list of shim's, which it splits over variables or keeps in a table if it is long."""
    parts = [
        root.read_bytes(EFI, "mok-variables", entry)
        for entry in root.listdir(EFI, "mok-variables")
        if re.match(name + r"\d*$", entry)
    ]
    for entry in root.listdir(EFI, "efivars"):
        if re.match(r"%s\d*-%s$" % (name, _SHIM), entry):
            parts.append(root.read_bytes(EFI, "efivars", entry))
    return b"\n".join(filter(None, parts))


def _enforced_by(root: Root) -> list[str]:
    """Return why unsigned modules are not loaded; nothing if they are."""
    lines = []
    if root.read_text(_SIG_ENFORCE) == "Y":
        lines.append(_SIG_ENFORCE + ": Y")
    elif (kernels.read_config(root, kernels.running(root)) or {}).get("CONFIG_MODULE_SIG_FORCE") == "y":
        lines.append("CONFIG_MODULE_SIG_FORCE: y")
    if lockdown(root) not in (None, "none"):
        lines.append("%s: %s" % (_LOCKDOWN, root.read_text(_LOCKDOWN)))
    return lines


def _seen(root: Root, path: str | None) -> list[str]:
    """Say where a certificate that is not trusted was looked for."""
    certificate = certificate_at(root, path) if path else None
    if certificate is None:
        return []
    lines = ["%s: no key %s" % (_KEYS, key_id(certificate))]
    if certificate in _listed(root, "MokListRT"):
        lines.append("MokListRT: has it, but this kernel did not take it over")
    return lines


def make_key(root: Root) -> list[str]:
    """Return the commands that make DKMS's key and nothing else."""
    key, certificate = pair(root)
    program = kernels.find_program(root, "dkms")
    if program and b"generate_mok" in (root.read_bytes(program) or b""):
        return ["dkms generate_mok"]
    return [
        "install -d -m 0755 %s" % key.rsplit("/", 1)[0],
        '(umask 077; openssl req -new -x509 -nodes -days 36500 -subj "/CN=DKMS module signing key" -newkey rsa:2048'
        " -keyout %s -outform DER -out %s)" % (key, certificate),
    ]


def _enrol_with(root: Root, state: str, key: str, certificate: str, ready: bool) -> list[str]:
    if ready and state == ENROLLED:
        return []
    if ready and state == PENDING:
        return [_CONFIRM]
    steps = [] if ready or key.startswith("pkcs11:") else make_key(root)
    if not root.exists(EFI):
        return steps
    return [*steps, "mokutil --import %s (it asks for a password of your choice)" % certificate, _CONFIRM]


def _remedy(root: Root, signing: Signing) -> str:
    if not root.exists(EFI):
        return (
            "This host was not booted by UEFI, so no key can be enrolled: boot without module.sig_enforce, or with a"
            " kernel that was built with the certificate in CONFIG_SYSTEM_TRUSTED_KEYS."
        )
    need = [program for program in ("openssl", "mokutil") if kernels.find_program(root, program) is None]
    if signing.certificate and "openssl" in need:
        need.remove("openssl")
    steps = (["install %s" % " and ".join(need)] if need else []) + signing.enrol_with
    text = "As root, change by change: %s; then run again." % "; ".join(steps)
    if secure_boot(root) is False:
        text += " Kernels take enrolled keys (MOK) only with Secure Boot on, and it is off: turn it on as well."
    return text
