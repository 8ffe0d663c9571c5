# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Two runs on one host follow each other, and one that was killed keeps nobody out."""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import stat
import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import Iterator

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils import _answer, _run
from ansible_collections.baremetal.noiommu.plugins.module_utils._base import lock
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.fs import Root
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.lock import exclusive, unless_check_mode
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.paths import LOCK
from ansible_collections.baremetal.noiommu.plugins.modules import vfio_binding
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_kernel import Machine
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_module import FakeModule
from ansible_collections.baremetal.noiommu.tests.unit.support.transactions import boot
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree

MODULES = "ansible_collections.baremetal.noiommu.plugins.modules."
_HOLD = """
import fcntl, sys, time
with open(sys.argv[1], "a") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    print(flush=True)
    time.sleep(60)
"""


def test_the_second_is_told_who_holds_it(tree: Tree) -> None:
    tree.file("/proc/%d/comm" % os.getpid(), "python3")
    with exclusive(tree.root):
        assert stat.S_IMODE(tree.at(LOCK).stat().st_mode) == 0o600
        with pytest.raises(HostError) as caught, exclusive(tree.root, wait=0.0):
            pass
    assert caught.value.code == "busy" and caught.value.remedy
    assert caught.value.evidence == ["%s is locked by process %d (python3)" % (LOCK, os.getpid())]
    with exclusive(tree.root, wait=0.0):
        pass


def test_a_failure_gives_it_back(tree: Tree) -> None:
    with pytest.raises(KeyError), exclusive(tree.root):
        raise KeyError
    with exclusive(tree.root, wait=0.0):
        pass


def test_it_is_waited_for(tree: Tree) -> None:
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with exclusive(tree.root):
            held.set()
            done.wait(0.3)

    first = threading.Thread(target=hold)
    first.start()
    held.wait()
    with exclusive(tree.root, wait=30.0):
        pass
    first.join()


def test_a_holder_that_is_killed_holds_nothing(tree: Tree) -> None:
    tree.file(LOCK)
    with subprocess.Popen([sys.executable, "-c", _HOLD, str(tree.at(LOCK))], stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        holder.stdout.readline()
        with pytest.raises(HostError, match="Another run"), exclusive(tree.root, wait=0.0):
            pass
        holder.kill()
    with exclusive(tree.root, wait=0.0):
        pass


def test_without_space_it_is_held_all_the_same(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(lock.os, "pwrite", full)
    with exclusive(tree.root), pytest.raises(HostError, match="Another run") as caught, exclusive(tree.root, wait=0.0):
        pass
    assert "an unknown process" in caught.value.evidence[0]


def test_a_link_in_its_place_is_not_followed(tree: Tree) -> None:
    tree.file("/etc/passwd", "root")
    tree.link(LOCK, "/etc/passwd")
    with pytest.raises(HostError, match="Could not open"), exclusive(tree.root):
        pass
    assert tree.root.read_text("/etc/passwd") == "root"


def test_those_that_change_bindings_take_it(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "WAIT", 0.0)
    monkeypatch.setattr(_answer, "Root", lambda: machine.root)
    monkeypatch.setattr(_run, "Runner", lambda: machine.runner)

    def bind_nothing(check_mode: bool = False) -> FakeModule:
        module = FakeModule({**dict.fromkeys(vfio_binding.ARGUMENTS), "driver": "vfio-pci", "state": "absent"})
        module.check_mode = check_mode
        monkeypatch.setattr(vfio_binding, "AnsibleModule", lambda **_options: module)
        with contextlib.suppress(SystemExit):
            vfio_binding.main()
        return module

    with exclusive(machine.root):
        with pytest.raises(HostError, match="Another run"):
            boot(machine)
        assert "Another run" in bind_nothing().failure["msg"]
        assert bind_nothing(check_mode=True).result["changed"] is False
    assert bind_nothing().result["changed"] is False
    assert boot(machine)[0] == 0


def test_check_mode_waits_for_nobody(tree: Tree) -> None:
    with exclusive(tree.root), unless_check_mode(tree.root, True):
        pass
    refused = pytest.raises(HostError, match="did not end within 0 s")
    with exclusive(tree.root), refused, unless_check_mode(tree.root, False, 0.0):
        pass


@pytest.mark.parametrize("name", ["dataplane_access", "dkms_module", "hugepages", "kernel_cmdline"])
def test_every_module_that_changes_the_host_takes_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each from where it is called by Ansible, with everything else left out."""
    module = importlib.import_module(MODULES + name)
    order: list[str] = []

    @contextlib.contextmanager
    def held(root: Root, check_mode: bool, wait: float | None = None) -> Iterator[None]:
        order.append("locked")
        yield
        order.append("free")

    def work(*_args: object) -> dict[str, object]:
        order.append("worked")
        return {"changed": False}

    fake = SimpleNamespace(check_mode=False, _diff=False, params={"state": "present"}, exit_json=lambda **_result: None)
    monkeypatch.setattr(module, "AnsibleModule", lambda **_options: fake)
    monkeypatch.setattr(_run, "unless_check_mode", held)
    monkeypatch.setattr(module, "present" if name == "dkms_module" else name, work)
    module.main()
    assert order == ["locked", "worked", "free"]
