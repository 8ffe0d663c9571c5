# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later


from __future__ import annotations

import gzip
import lzma
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.command import RunResult
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._dkms import archive as archives
from ansible_collections.baremetal.noiommu.plugins.module_utils._dkms.archive import Archive
from ansible_collections.baremetal.noiommu.plugins.module_utils._dkms.source import Source, digest, pack
from ansible_collections.baremetal.noiommu.plugins.modules import dkms_module
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_dkms import KERNEL, OTHER, FakeDkms, build_host
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_module import FakeModule
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree

ARCH = os.uname().machine
SOURCE: Source = {
    "dkms.conf": b'PACKAGE_NAME="noiommu"\nPACKAGE_VERSION="1.0.0"\n',
    "noiommu.c": b"int a;",
    "Makefile": b"all:\n",
}
DIGEST = digest(SOURCE)
RECORD = "/var/lib/noiommu/dkms-noiommu.json"
INSTALLED = "/lib/modules/%s/updates/dkms/noiommu.ko"
BOTH = {KERNEL: "installed", OTHER: "installed"}
SIGNED = b"vermagic=%s ~Module signature appended~\n" % KERNEL.encode()
CERTIFICATE = b"\x06\x03\x55\x1d\x0e\x04\x04\x04\x02\xab\xcd"
ZSTD = (".zst", lambda plain: b"\x28\xb5\x2f\xfd" + plain[::-1])  # as unreadable here as the real thing


def made_for(kernel: str, **changes: Any) -> bytes:
    code = b"\x7fELF vermagic=%s SMP" % kernel.encode()
    archive = Archive("noiommu", "1.0.0", DIGEST, kernel, ARCH, {"noiommu.ko": code}, SOURCE["dkms.conf"], None)
    return archives.pack(archive._replace(**changes))


@pytest.fixture
def bare(tree: Tree) -> FakeDkms:
    """A host with two kernels and nothing to build with."""
    build_host(tree)
    tree.remove("/usr")
    tree.remove("/var/lib/dkms")
    for kernel in (KERNEL, OTHER):
        tree.remove("/lib/modules/%s/build" % kernel)
    return FakeDkms(tree)


def params(**given: Any) -> dict[str, Any]:
    return {
        "name": "noiommu",
        "version": "1.0.0",
        "digest": DIGEST,
        "kernels": [],
        "archive": None,
        "build": "prebuilt",
        "available": {},
        "unbuilt": {},
        "archive_files": {},
        **given,
    }


class Run:
    """One execution as the action plugin does it: the archives are sent only if they are asked for."""

    def __init__(self, dkms: FakeDkms, tmp: Path, packed: dict[str, bytes], check: bool = False, **given: Any) -> None:
        sums = {kernel: archives.sha256(archive) for kernel, archive in packed.items()}
        self.module = FakeModule(params(available=sums, **given), check)
        self.result = dkms_module.present(self.module, dkms.tree.root, dkms)
        self.sent = [] if check else self.result["archives_needed"]
        if self.sent:
            for kernel in self.sent:
                (tmp / kernel).write_bytes(packed[kernel])
                self.module.params["archive_files"][kernel] = str(tmp / kernel)
            self.module.warnings.clear()
            self.result = dkms_module.present(self.module, dkms.tree.root, dkms)


@pytest.fixture
def tmp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sent")


@pytest.fixture
def packed() -> dict[str, bytes]:
    return {kernel: made_for(kernel) for kernel in (KERNEL, OTHER)}


def refused(dkms: FakeDkms, tmp: Path, packed: dict[str, bytes], **given: Any) -> HostError:
    before = dkms.tree.content()
    with pytest.raises(HostError) as caught:
        Run(dkms, tmp, packed, **given)
    assert dkms.tree.content() == before
    assert caught.value.evidence and caught.value.remedy
    return caught.value


# --- a host without a compiler ---


def test_installed_where_dkms_would_have_put_it(bare: FakeDkms, tmp: Path, packed: dict[str, bytes]) -> None:
    run = Run(bare, tmp, packed)
    assert run.result["changed"] and run.sent == [KERNEL, OTHER]
    assert run.result["before"] == {KERNEL: "absent", OTHER: "absent"} and run.result["after"] == BOTH
    assert b"vermagic=" + OTHER.encode() in (bare.tree.root.read_bytes(INSTALLED % OTHER) or b"")
    assert bare.ran == ["depmod " + KERNEL, "depmod " + OTHER]


def test_converged_sends_nothing_and_runs_nothing(bare: FakeDkms, tmp: Path, packed: dict[str, bytes]) -> None:
    Run(bare, tmp, packed)
    bare.ran.clear()
    whole = bare.tree.content()
    for available in (packed, {}):  # also where the controller has lost its archives
        run = Run(bare, tmp, available)
        assert not run.result["changed"] and not run.sent and run.result["failed_kernels"] == {}
    assert bare.ran == [] and bare.tree.content() == whole


def test_check_mode_predicts(bare: FakeDkms, tmp: Path, packed: dict[str, bytes]) -> None:
    before = bare.tree.content()
    predicted = Run(bare, tmp, packed, check=True)
    assert bare.tree.content() == before and bare.ran == []
    real = Run(bare, tmp, packed)
    for key in ("changed", "before", "after", "replaced", "failed_kernels", "diff"):
        assert real.result[key] == predicted.result[key]


def test_check_mode_before_anything_was_built_is_a_warning(bare: FakeDkms, tmp: Path) -> None:
    run = Run(bare, tmp, {}, check=True)
    assert KERNEL in run.module.warnings[0] and "fixed first" in run.module.warnings[0]


def test_the_running_kernel_without_an_archive_is_an_error_naming_it(bare: FakeDkms, tmp: Path) -> None:
    error = refused(bare, tmp, {OTHER: made_for(OTHER)})
    assert error.code == "archive_missing" and KERNEL in error.message and OTHER in error.evidence[0]


def test_another_kernel_without_an_archive_is_reported(bare: FakeDkms, tmp: Path) -> None:
    run = Run(bare, tmp, {KERNEL: made_for(KERNEL)})
    assert run.result["after"] == {KERNEL: "installed", OTHER: "absent"} and OTHER in run.result["failed_kernels"]
    assert OTHER in run.module.warnings[0]
    again = Run(bare, tmp, {KERNEL: made_for(KERNEL)})
    assert not again.result["changed"] and OTHER in again.result["failed_kernels"]


def test_a_named_kernel_without_an_archive_is_an_error(bare: FakeDkms, tmp: Path) -> None:
    assert refused(bare, tmp, {KERNEL: made_for(KERNEL)}, kernels=[OTHER]).code == "archive_missing"
    assert refused(bare, tmp, {}, kernels=["7.7.7"]).code == "kernel"


@pytest.mark.parametrize("damage", ["tampered", "lost"])
def test_what_was_changed_is_mended(bare: FakeDkms, tmp: Path, packed: dict[str, bytes], damage: str) -> None:
    Run(bare, tmp, packed)
    whole = bare.tree.content()
    if damage == "lost":
        bare.tree.remove(INSTALLED % KERNEL)
    else:
        bare.tree.file(INSTALLED % KERNEL, "tampered")
    run = Run(bare, tmp, packed)
    assert run.sent == [KERNEL] and run.result["before"][KERNEL] == ("absent" if damage == "lost" else "differs")
    assert bare.tree.content() == whole


def test_a_new_archive_of_the_same_source_is_taken(bare: FakeDkms, tmp: Path, packed: dict[str, bytes]) -> None:
    """As after the build host got another signing key."""
    Run(bare, tmp, packed)
    packed[KERNEL] = made_for(KERNEL, modules={"noiommu.ko": b"\x7fELF vermagic=%s new" % KERNEL.encode()})
    assert Run(bare, tmp, packed).sent == [KERNEL]
    assert not Run(bare, tmp, packed).result["changed"]


def test_a_removed_kernel_is_cleared(bare: FakeDkms, tmp: Path, packed: dict[str, bytes]) -> None:
    Run(bare, tmp, packed)
    bare.tree.remove("/lib/modules/%s/kernel" % OTHER)
    run = Run(bare, tmp, packed)
    assert run.result["changed"] and not bare.tree.root.exists(INSTALLED % OTHER)
    assert not Run(bare, tmp, packed).result["changed"]


def test_absent_takes_everything_back(bare: FakeDkms, tmp: Path, packed: dict[str, bytes]) -> None:
    before = bare.tree.content()
    Run(bare, tmp, packed)
    module = FakeModule({"name": "noiommu"}, False)
    result = dkms_module.absent(module, bare.tree.root, bare)
    assert result["changed"] and result["before"] == BOTH
    after = bare.tree.content()
    assert {path for path in after if "noiommu" in path} == set()
    assert set(after) - set(before) <= {"/var/lib/noiommu", "/usr"}
    assert not dkms_module.absent(module, bare.tree.root, bare)["changed"]


@pytest.mark.parametrize(
    ("packed", "code", "said"),
    [
        (made_for(OTHER), "archive", OTHER),
        (made_for(KERNEL, version="9.9"), "archive", "9.9"),
        (made_for(KERNEL, digest="0" * 64), "archive", "000"),
        (made_for(KERNEL, arch="sparc"), "archive", "sparc"),
        (made_for(KERNEL, modules={"noiommu.ko": b"\x7fELF vermagic=6.6.6 SMP"}), "archive", "6.6.6"),
        (b"no archive", "archive", "BadGzipFile"),
        (archives.pack(Archive("a", "1", "d", "k", "x", {}, b"", None)), "archive", "ValueError"),
    ],
)
def test_an_archive_that_does_not_fit(bare: FakeDkms, tmp: Path, packed: bytes, code: str, said: str) -> None:
    error = refused(bare, tmp, {KERNEL: packed})
    assert error.code == code and said in str(error.evidence)


def test_an_archive_that_arrives_damaged(bare: FakeDkms, tmp: Path) -> None:
    (tmp / "a").write_bytes(made_for(KERNEL) + b"x")
    given = {"available": {KERNEL: archives.sha256(made_for(KERNEL))}, "archive_files": {KERNEL: str(tmp / "a")}}
    with pytest.raises(HostError) as caught:
        dkms_module.present(FakeModule(params(**given)), bare.tree.root, bare)
    assert caught.value.code == "archive_checksum"
    (tmp / "a").unlink()
    with pytest.raises(HostError) as caught:
        dkms_module.present(FakeModule(params(**given)), bare.tree.root, bare)
    assert "did not arrive" in caught.value.message


def test_a_failing_depmod_leaves_the_old_module(bare: FakeDkms, tmp: Path, packed: dict[str, bytes]) -> None:
    Run(bare, tmp, packed)
    new = {kernel: made_for(kernel, modules={"noiommu.ko": b"vermagic=%s new" % kernel.encode()}) for kernel in packed}
    bare.failing["depmod " + OTHER] = RunResult(1, "", "depmod: ERROR: No space left on device\n")
    error = refused(bare, tmp, new)
    assert error.code == "install_failed" and "No space left" in str(error.evidence)


def test_only_signed_and_trusted_modules_where_that_is_demanded(bare: FakeDkms, tmp: Path) -> None:
    bare.tree.file("/sys/module/module/parameters/sig_enforce", "Y")
    error = refused(bare, tmp, {KERNEL: made_for(KERNEL)})
    assert error.code == "not_signed" and "noiommu.ko: no signature" in error.evidence
    packed = {KERNEL: made_for(KERNEL, modules={"noiommu.ko": SIGNED}, certificate=CERTIFICATE)}
    error = refused(bare, tmp, packed)
    assert error.code == "key_not_enrolled" and "mokutil --import" in error.remedy
    bare.tree.file("/proc/keys", "asymmetri DKMS module signing key: abcd: X509.rsa abcd []")
    assert Run(bare, tmp, packed).result["after"][KERNEL] == "installed"


def test_a_module_that_cannot_be_looked_into_is_called_neither_signed_nor_unsigned(bare: FakeDkms, tmp: Path) -> None:
    bare.tree.file("/sys/module/module/parameters/sig_enforce", "Y")
    modules = {"noiommu.ko" + ZSTD[0]: ZSTD[1](SIGNED)}
    error = refused(bare, tmp, {KERNEL: made_for(KERNEL, modules=modules)})
    assert error.code == "not_signed" and "no signature" not in str(error.evidence)
    packed = {KERNEL: made_for(KERNEL, modules=modules, certificate=CERTIFICATE)}
    assert refused(bare, tmp, packed).code == "key_not_enrolled"
    bare.tree.file("/proc/keys", "asymmetri DKMS module signing key: abcd: X509.rsa abcd []")
    assert Run(bare, tmp, packed).result["after"][KERNEL] == "installed"


# --- from one way to the other ---


def test_from_built_here_to_prebuilt_and_back(tree: Tree, tmp: Path, packed: dict[str, bytes]) -> None:
    build_host(tree)
    dkms = FakeDkms(tree)

    def on_host() -> dict[str, Any]:
        with open(tmp / "source", "wb") as stream:
            stream.write(pack(SOURCE))
        module = FakeModule(params(build="on_host", archive=str(tmp / "source")))
        return dkms_module.present(module, tree.root, dkms)

    on_host()
    built = tree.content()
    run = Run(dkms, tmp, packed)
    assert run.result["replaced"] == ["1.0.0"] and not tree.root.exists("/usr/src/noiommu-1.0.0")
    assert not Run(dkms, tmp, packed).result["changed"]
    assert on_host()["changed"]
    kept = {path: text for path, text in tree.content().items() if path != RECORD}
    assert kept == {path: text for path, text in built.items() if path != RECORD}
    assert not on_host()["changed"]


# --- the build host ---


@pytest.fixture
def builder(tree: Tree) -> FakeDkms:
    build_host(tree)
    return FakeDkms(tree)


def build(dkms: FakeDkms, tmp: Path, kernels: list[str], check: bool = False) -> dict[str, Any]:
    (tmp / "source").write_bytes(pack(SOURCE))
    given = params(kernels=kernels, archive=None if check else str(tmp / "source"), destination="/tmp")
    return dkms_module.archived(FakeModule(given, check), dkms.tree.root, dkms)


def fetched(dkms: FakeDkms, kernel: str) -> bytes:
    """Return the archive that the action plugin would fetch."""
    return dkms.tree.root.read_bytes("/tmp", archives.remote_name(kernel)) or b""


def test_each_kernel_is_built_once_and_nothing_is_installed(builder: FakeDkms, tmp: Path) -> None:
    builder.tree.file("/var/lib/dkms/mok.key", "key")
    builder.tree.file("/var/lib/dkms/mok.pub", "pub")
    before = builder.tree.content()
    made = build(builder, tmp, [KERNEL, OTHER])["made"]
    assert sorted(made) == [KERNEL, OTHER]
    assert len([line for line in builder.ran if line.startswith("dkms build")]) == 2
    for kernel, checksum in made.items():
        content = fetched(builder, kernel)
        assert archives.sha256(content) == checksum
        archive = archives.unpack(content, kernel)
        assert (archive.kernel, archive.digest) == (kernel, DIGEST) and kernel.encode() in archive.modules["noiommu.ko"]
        builder.tree.remove("/tmp/" + archives.remote_name(kernel))
    assert builder.tree.content() == before


def test_the_certificate_travels_with_signed_modules(builder: FakeDkms, tmp: Path) -> None:
    builder.signs = True
    build(builder, tmp, [KERNEL])
    assert archives.unpack(fetched(builder, KERNEL), "x").certificate == b"pub\n"


@pytest.mark.parametrize(
    ("packing", "signs", "travels"),
    [((".gz", gzip.compress), True, True), ((".gz", gzip.compress), False, False), (ZSTD, True, True)],
)
def test_the_certificate_travels_unless_a_module_is_known_to_be_unsigned(
    builder: FakeDkms, tmp: Path, packing: tuple[str, Callable[[bytes], bytes]], signs: bool, travels: bool
) -> None:
    builder.signs, builder.packing = signs, packing
    build(builder, tmp, [KERNEL])
    archive = archives.unpack(fetched(builder, KERNEL), "x")
    assert list(archive.modules) == ["noiommu.ko" + packing[0]] and (archive.certificate == b"pub\n") is travels


def test_missing_packages_are_reported_for_the_role_to_install(builder: FakeDkms, tmp: Path) -> None:
    builder.tree.remove("/usr/sbin/dkms")
    result = build(builder, tmp, [KERNEL, "6.6.6"], check=True)
    assert {"dkms", "linux-headers-6.6.6"} <= set(result["packages_missing"]) and "6.6.6" in result["failed_kernels"]
    with pytest.raises(HostError) as caught:
        build(builder, tmp, [KERNEL])
    assert caught.value.code == "build_tools_missing"


def test_what_cannot_be_built_does_not_stop_the_others(builder: FakeDkms, tmp: Path) -> None:
    builder.failing["-k " + KERNEL] = RunResult(10, "", "a.c:1:1: error: oops")
    result = build(builder, tmp, [KERNEL, OTHER, "6.6.6"])
    assert list(result["made"]) == [OTHER] and sorted(result["failed_kernels"]) == sorted([KERNEL, "6.6.6"])


# --- the controller's directory ---


def test_archives_are_kept_with_their_checksums(tmp: Path) -> None:
    directory = str(tmp / "new" / "archives")
    assert archives.stored(directory, "noiommu", "1.0.0", DIGEST) == {}
    name = archives.file_name("noiommu", "1.0.0", DIGEST, KERNEL, "x86_64")
    path = archives.store(directory, name, b"content")
    found = archives.stored(directory, "noiommu", "1.0.0", DIGEST)
    assert list(found) == [KERNEL] and archives.load(found[KERNEL]) == b"content"
    assert archives.stored(directory, "noiommu", "1.0.0", "f" * 64) == {}
    Path(path).write_bytes(b"other")
    with pytest.raises(HostError) as caught:
        archives.load(found[KERNEL])
    assert caught.value.code == "archive_checksum"
    Path(path + ".sha256").unlink()
    with pytest.raises(HostError) as caught:
        archives.stored(directory, "noiommu", "1.0.0", DIGEST)
    assert "no checksum" in caught.value.message


def test_of_many_that_store_the_same_name_at_once_the_first_stays(tmp: Path) -> None:
    name = archives.file_name("noiommu", "1.0.0", DIGEST, KERNEL, "x86_64")
    contents = [b"content %d" % number for number in range(16)]
    with ThreadPoolExecutor(len(contents)) as pool:
        list(pool.map(lambda content: archives.store(str(tmp), name, content), contents))
    assert sorted(os.listdir(tmp)) == [name, name + ".sha256"]
    kept = archives.load(archives.stored(str(tmp), "noiommu", "1.0.0", DIGEST)[KERNEL])  # with its own checksum
    archives.store(str(tmp), name, b"another builder's")
    assert kept in contents and (tmp / name).read_bytes() == kept


@pytest.mark.parametrize("noted", [b"", b"\xff\xfe", b"0f3a", b"G" * 64])
def test_a_checksum_that_is_none(tmp: Path, noted: bytes) -> None:
    path = archives.store(str(tmp), archives.file_name("noiommu", "1.0.0", DIGEST, KERNEL, "x86_64"), b"content")
    Path(path + ".sha256").write_bytes(noted)
    with pytest.raises(HostError) as caught:
        archives.stored(str(tmp), "noiommu", "1.0.0", DIGEST)
    assert caught.value.code == "archive_checksum"


# --- what an archive of a build host may hold ---


@pytest.mark.parametrize("name", ["e1000e.ko", "noiommu.ko.sh", "noiommu-x.ko", "..", ".profile", "xnoiommu.ko"])
def test_an_archive_holds_no_other_module(bare: FakeDkms, tmp: Path, name: str) -> None:
    error = refused(bare, tmp, {KERNEL: made_for(KERNEL, modules={name: b"vermagic=%s " % KERNEL.encode()})})
    assert error.code == "archive" and "is not a file of the module noiommu" in error.evidence[0]


@pytest.mark.parametrize("arch", ["..", "x86_64 ", "A" * 40, "-x"])
def test_an_archive_is_for_an_architecture(arch: str) -> None:
    with pytest.raises(HostError, match="not one that this collection made"):
        archives.unpack(made_for(KERNEL, arch=arch), "here")


def test_an_archive_that_fills_the_memory_is_refused() -> None:
    with pytest.raises(HostError) as caught:
        archives.unpack(gzip.compress(bytes(65 << 20)), "here")
    assert "more than 64 MiB" in caught.value.evidence[0]


DAMAGED = {
    ".ko.xz": lzma.compress(b"vermagic=%s " % KERNEL.encode())[:-9],
    ".ko.gz": gzip.compress(b"vermagic=%s " % KERNEL.encode())[:-3] + b"xyz",
}


@pytest.mark.parametrize("suffix", sorted(DAMAGED))
def test_a_module_that_is_damaged_inside_its_archive(bare: FakeDkms, tmp: Path, suffix: str) -> None:
    error = refused(bare, tmp, {KERNEL: made_for(KERNEL, modules={"noiommu" + suffix: DAMAGED[suffix]})})
    assert error.code == "module_damaged" and "noiommu" + suffix in error.evidence[0]


def test_a_module_that_was_built_damaged_is_in_no_archive(builder: FakeDkms, tmp: Path) -> None:
    builder.packing = (".xz", lambda plain: lzma.compress(plain)[:-5])
    before = builder.tree.content()
    with pytest.raises(HostError) as caught:
        build(builder, tmp, [KERNEL])
    assert caught.value.code == "module_damaged"
    assert {path for path in builder.tree.content() if path not in before} <= {
        "/var/lib/dkms/mok.key",
        "/var/lib/dkms/mok.pub",
    }


# --- two builders on one host ---


class OtherBuilder(FakeDkms):
    """While it builds for the first one, a second one comes with another source, and no lock holds it back."""

    def __init__(self, tree: Tree, tmp: Path) -> None:
        super().__init__(tree)
        self._tmp, self.second = tmp, None

    def run(self, *argv: str) -> RunResult:
        if argv[:2] == ("dkms", "build") and self.second is None:
            self.second = FakeDkms(self.tree)
            theirs = {**SOURCE, "noiommu.c": b"int theirs;"}
            (self._tmp / "theirs").write_bytes(pack(theirs))
            given = params(
                kernels=[KERNEL], digest=digest(theirs), archive=str(self._tmp / "theirs"), destination="/theirs"
            )
            dkms_module.archived(FakeModule(given), self.tree.root, self.second)
        return super().run(*argv)


def test_two_builders_never_mix(tree: Tree, tmp: Path) -> None:
    build_host(tree)
    first = OtherBuilder(tree, tmp)
    try:
        build(first, tmp, [KERNEL])
        code = archives.unpack(fetched(first, KERNEL), "x").modules["noiommu.ko"]
        assert b"int a;" in code and b"theirs" not in code
    except HostError:
        assert fetched(first, KERNEL) == b""
    theirs = archives.unpack(tree.root.read_bytes("/theirs", archives.remote_name(KERNEL)) or b"", "x")
    assert b"int theirs;" in theirs.modules["noiommu.ko"]


def test_a_source_that_changes_under_the_build_makes_no_archive(builder: FakeDkms, tmp: Path) -> None:
    real = builder.run

    def run(*argv: str) -> RunResult:
        done = real(*argv)
        if argv[:2] == ("dkms", "build"):
            (stage,) = [entry for entry in builder.tree.root.listdir("/var/lib/dkms") if "stage" in entry]
            builder.tree.file("/var/lib/dkms/%s/source/noiommu-1.0.0/noiommu.c" % stage, "int evil;")
        return done

    builder.run = run  # type: ignore[method-assign]
    with pytest.raises(HostError) as caught:
        build(builder, tmp, [KERNEL])
    assert caught.value.code == "build_mixed" and fetched(builder, KERNEL) == b""


@pytest.mark.parametrize("state", ["present", "absent", "archived"])
def test_every_state_waits_for_other_runs_on_the_host(monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(dkms_module, "AnsibleModule", lambda **_spec: FakeModule({"state": state}))
    monkeypatch.setattr(dkms_module, "run", lambda _module, _act, **how: asked.update(how))
    dkms_module.main()
    assert asked == {"lock_wait": 900.0}  # and not reads_only


def test_the_same_content_gives_the_same_bytes() -> None:
    assert made_for(KERNEL) == made_for(KERNEL)


def test_a_kernel_that_is_none_reaches_nothing(builder: FakeDkms, tmp: Path) -> None:
    for check in (True, False):
        with pytest.raises(HostError) as caught:
            build(builder, tmp, [KERNEL, "amd64,inetutils-telnetd"], check=check)
        assert caught.value.code == "kernel_release"
    assert builder.ran == []


def test_why_there_is_no_archive_is_said(bare: FakeDkms, tmp: Path) -> None:
    why = "builder: linux-headers-%s could not be installed: not found"
    error = refused(bare, tmp, {}, unbuilt={KERNEL: [why % KERNEL]})
    assert error.code == "archive_missing" and why % KERNEL in error.evidence
    run = Run(bare, tmp, {KERNEL: made_for(KERNEL)}, unbuilt={OTHER: [why % OTHER]})
    assert why % OTHER in run.result["failed_kernels"][OTHER] and any(
        why % OTHER in warning for warning in run.module.warnings
    )


def test_a_stored_name_without_a_release_is_another_file(tmp: Path) -> None:
    for kernel in (KERNEL, "..", "6.1.0,x", "x"):
        archives.store(str(tmp), archives.file_name("noiommu", "1.0.0", DIGEST, kernel, "x86_64"), b"content")
    assert list(archives.stored(str(tmp), "noiommu", "1.0.0", DIGEST)) == [KERNEL]


def test_an_archive_for_what_is_no_release(tmp: Path) -> None:
    packed = archives.pack(Archive("noiommu", "1.0.0", DIGEST, "..", "x86_64", {"noiommu.ko": b""}, b"", None))
    with pytest.raises(HostError) as caught:
        archives.unpack(packed, "here")
    assert caught.value.code == "kernel_release"
