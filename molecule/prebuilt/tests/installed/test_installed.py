# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One kernel, one build, whatever the number of runs; nothing of it stays on the build host."""

from __future__ import annotations

import subprocess

from live import RUN, on, playbook, remote_executions

HOST = "papa"


def archives() -> list[str]:
    return [path.name for path in (RUN / "archives").glob("*.dkms.tar.gz")]


def test_one_archive_for_the_one_kernel():
    kernel = on(HOST, "uname -r").strip()
    assert len(archives()) == 1 and f"-kernel{kernel}-" in archives()[0]
    subprocess.run(["sha256sum", "--check", "--quiet", archives()[0] + ".sha256"], cwd=RUN / "archives", check=True)


def test_the_build_host_has_nothing_installed():
    assert (
        on(
            "builder",
            "ls -d /usr/src/noiommu* /var/lib/dkms/noiommu* /var/lib/dkms/.noiommu* 2>/dev/null;"
            " find /lib/modules -name 'noiommu*'; true",
        )
        == ""
    )


def test_it_is_not_asked_again():
    before = remote_executions("builder")
    done = playbook("deploy", HOST)
    assert done.returncode == 0 and "changed=0" in done.stdout, done.stdout
    done = playbook("verify", HOST)
    assert done.returncode == 0, done.stdout
    assert before > 0 and remote_executions("builder") == before


def test_dkms_itself_takes_the_archive():
    (archive,) = archives()
    content = (RUN / "archives" / archive).read_bytes()
    subprocess.run(
        ["ssh", "-F", str(RUN / "ssh_config"), "builder", "cat > /run/archive.dkms.tar.gz"], input=content, check=True
    )
    # Into a tree of its own; DKMS ends with an error where it has no source beside the binaries.
    on("builder", "dkms ldtarball --dkmstree /run/tree --archive /run/archive.dkms.tar.gz || true")
    assert "noiommu.ko" in on("builder", "find /run/tree -name 'noiommu.ko*'")
