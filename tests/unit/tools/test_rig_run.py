# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""A run's inventory and record, its processes and their monitors, without running a machine."""

from __future__ import annotations

import subprocess
import sys
import time
import uuid

import pytest
from ansible_collections.baremetal.noiommu.tests.unit.support.rig_machines import (
    MACHINES,
)
from rig import common, qemu, run
from rig.common import RigError


@pytest.fixture(name="record")
def stopped_machine(tmp_path):
    """A run whose machine `a` is off."""
    record = run.Run(tmp_path)
    record.machines = {"a": {"uuid": str(uuid.uuid4()), "port": 1, "accel": "tcg"}}
    record.save()
    (tmp_path / "a").mkdir()
    return record


def test_a_machine_that_is_off_or_on_already(record, monkeypatch, capsys):
    run.off(record.dir, "a")
    assert "off already" in capsys.readouterr().err
    monkeypatch.setattr(run.Run, "pid", lambda self, name: 1)
    for function in (run.on, lambda *args: run.enrol_mok(*args, common.Path("k"))):
        with pytest.raises(RigError, match="is running") as caught:
            function(record.dir, "a")
        assert caught.value.evidence and caught.value.remedy


def test_a_shutdown_that_does_not_end_is_told(record, monkeypatch):
    monkeypatch.setattr(run.Run, "pid", lambda self, name: 1)
    monkeypatch.setattr(run, "OFF_TIMEOUT", -1)
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: None)
    (record.dir / "a/serial.log").write_text("Stopping something...", encoding="utf-8")
    with pytest.raises(RigError, match="still running") as caught:
        run.off(record.dir, "a")
    assert "Stopping something" in caught.value.evidence and "--cut" in caught.value.remedy


def test_enrolling_needs_variables_the_tool_and_a_certificate(record, monkeypatch, tmp_path):
    key = tmp_path / "key"
    key.write_text("no certificate", encoding="utf-8")
    with pytest.raises(RigError, match="no firmware variables") as caught:
        run.enrol_mok(record.dir, "a", key)
    assert "firmware: secureboot" in caught.value.remedy
    (record.dir / "a/vars.fd").touch()
    monkeypatch.setattr(run.shutil, "which", lambda name: str(tmp_path / "absent"))
    with pytest.raises(RigError, match=r"tool .* is missing"):
        run.enrol_mok(record.dir, "a", key)
    monkeypatch.setattr(run.shutil, "which", lambda name: "/bin/false")
    with pytest.raises(RigError, match="cannot be enrolled") as caught:
        run.enrol_mok(record.dir, "a", key)
    assert "/var/lib/dkms/mok.pub" in caught.value.remedy


def test_inventory():
    hosts = run.inventory(MACHINES, {"a": 1, "b": 2}, common.Path("/k"))["all"]["children"]
    assert set(hosts) == {"vms", "plain"} and set(hosts["plain"]["hosts"]) == {"a", "b"}
    b = hosts["vms"]["hosts"]["b"]
    assert (b["ansible_port"], b["k"], b["rig_iommu"], b["ansible_ssh_private_key_file"]) == (2, "v", "intel", "/k")
    mac = MACHINES[1].nics[1].mac
    assert b["rig_nics"][1] == {"address": "0000:00:11.0", "mac": mac, "model": "e1000e", "link": "in", "slot": None}
    assert "UserKnownHostsFile=/dev/null" in b["ansible_ssh_common_args"]


def test_only_a_qemu_with_the_recorded_uuid_is_killed(tmp_path):
    """A process that merely names the uuid survives `down`; one that looks like our QEMU does not."""
    ident = str(uuid.uuid4())
    other = subprocess.Popen(["sh", "-c", "read x", ident], stdin=subprocess.PIPE)
    fake = subprocess.Popen(
        ["loader", "-c", "read x", "qemu-system-fake", ident], executable="/bin/sh", stdin=subprocess.PIPE
    )
    try:
        while ident.encode() not in common.Path(f"/proc/{fake.pid}/cmdline").read_bytes():
            time.sleep(0.01)  # empty for an instant after exec
        record = run.Run(tmp_path)
        record.machines = {"a": {"uuid": ident, "port": 1, "accel": "tcg"}}
        record.save()
        assert run.Run(tmp_path).pid("a") == fake.pid
        assert run.Run(tmp_path).down() == 1
        assert other.poll() is None and qemu.find(ident) is None
        assert run.Run(tmp_path).down() == 0 and run.status(tmp_path) == 1
    finally:
        for proc in (other, fake):
            proc.kill()
            proc.wait()


def test_a_broken_record_and_an_unknown_machine_are_told(tmp_path):
    with pytest.raises(RigError, match="no machine 'x'"):
        run.reset(tmp_path, "x")
    (tmp_path / "state.json").write_text("[]", encoding="utf-8")
    with pytest.raises(RigError, match="no record of a run"):
        run.Run(tmp_path)


def test_a_directory_of_somebody_else_is_not_removed(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/precious").write_text("x", encoding="utf-8")
    with pytest.raises(RigError, match="not ours"):
        run.prepare(tmp_path / "a", MACHINES[0], ["true"], tmp_path)
    assert (tmp_path / "a/precious").exists()


def test_the_monitor_is_reached_through_a_path_longer_than_a_socket_address(tmp_path):
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    with pytest.raises(RigError, match="does not answer"):
        qemu.monitor(deep, "system_reset")
    code = (
        "import socket; s=socket.socket(socket.AF_UNIX); s.bind('qmp.sock'); s.listen()\n"
        "print(flush=True); c=s.accept()[0]\n"
        "c.send(b'{\"QMP\":{}}\\n'); c.recv(999); c.send(b'{\"return\":{}}\\n'); c.recv(999)\n"
        'c.send(b\'{"event":"RESET"}\\n{"return":{"ok":1}}\\n\'); c.recv(1)'
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=deep, stdout=subprocess.PIPE) as server:
        server.stdout.readline()
        assert qemu.monitor(deep, "system_reset") == {"ok": 1}


def test_a_failing_command_shows_the_end_of_its_log(tmp_path):
    with pytest.raises(RigError) as caught:
        common.run_logged("trying", ["sh", "-c", "echo nearly; exit 3"], tmp_path / "log")
    assert "exit code 3" in caught.value.cause and caught.value.evidence == "nearly"


def test_tail_drops_console_control(tmp_path):
    (tmp_path / "log").write_bytes(b"\x1b[2J\x1b[01;01HSeaBIOS\r\n\r\nlogin: \x07\n")
    assert common.tail(tmp_path / "log") == "SeaBIOS\nlogin: "


def test_the_cache_must_be_writable(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("NOIOMMU_CACHE", str(tmp_path / "file/below"))
    with pytest.raises(RigError, match="cache directory") as caught:
        common.cache_dir()
    assert "NOIOMMU_CACHE" in caught.value.remedy
