# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Under Secure Boot: what is missing is said before anything changes, step by step, and lockdown remains."""

from __future__ import annotations

from live import REPOSITORY, changes_since_baseline, module, on, playbook, refused, rig, save_baseline
from signing import CERTIFICATE, fails, fetch_certificate, load_unsigned, make_key, signing

HOST = "sierra"
NIC = "0000:00:10.0"
OUT_OF_TREE = 1 << 12


def deploy_refused(*expected: str) -> str:
    said = refused(HOST, *expected, target="locked")
    assert changes_since_baseline(HOST) == []
    return said


def test_the_machine_is_what_it_claims():
    assert "SecureBoot enabled" in on(HOST, "mokutil --sb-state")
    assert "[integrity]" in on(HOST, "cat /sys/kernel/security/lockdown")
    save_baseline(HOST)


def test_without_a_key_the_message_says_how_to_make_and_enrol_one():
    said = deploy_refused(
        "key_not_enrolled",
        "no key to sign with yet",
        "mokutil --import /var/lib/dkms/mok.pub",
        "MokManager",
        "lockdown",
        "Secure Boot: on",
        "does not suffice",
    )
    assert "Nothing was changed" in said


def test_the_printed_step_makes_the_key_and_nothing_else():
    make_key(HOST)
    state = signing(HOST)
    assert (state["key"], state["certificate"]) == ("/var/lib/dkms/mok.key", "/var/lib/dkms/mok.pub")
    assert state["enforced"] and state["enrolled"] == "no"
    assert on(HOST, "stat -c %a /var/lib/dkms/mok.key").strip() == "600"
    assert changes_since_baseline(HOST) == []


def test_an_unenrolled_key_is_detected_and_nothing_changed():
    deploy_refused("key_not_enrolled", "does not trust the key", "mokutil --import /var/lib/dkms/mok.pub")
    result = module(HOST, "dkms_module", source=str(REPOSITORY / "kmod"))
    assert result["refusals"][0]["code"] == "key_not_enrolled", result
    done = playbook("verify", HOST, target="locked")
    assert done.returncode != 0 and "key_not_enrolled" in done.stdout, done.stdout
    assert changes_since_baseline(HOST) == []


def test_a_queued_enrolment_is_reported_as_pending():
    on(
        HOST,
        "mokutil --generate-hash=secret >/run/hash && mokutil --hash-file /run/hash --import /var/lib/dkms/mok.pub",
    )
    assert signing(HOST)["enrolled"] == "pending"
    deploy_refused("key_pending", "Enroll MOK")


def test_after_the_enrolment_the_key_is_trusted():
    """The rig writes what MokManager would have written; nobody is at the console to confirm the request."""
    fetch_certificate(HOST)
    on(HOST, "mokutil --revoke-import")
    rig("off", HOST)
    rig("enrol-mok", HOST, str(CERTIFICATE))
    rig("on", HOST)
    state = signing(HOST)
    assert (state["enrolled"], state["enrol_with"]) == ("yes", [])


def test_lockdown_alone_still_refuses_and_both_facts_are_said():
    said = deploy_refused("lockdown", "[integrity]", "enrolled: yes", "Secure Boot: on")
    assert "key_not_enrolled" not in said and "key_pending" not in said, said


def test_the_signed_module_loads():
    result = module(HOST, "dkms_module", source=str(REPOSITORY / "kmod"))
    assert result["changed"] and list(result["after"].values()) == ["installed"], result
    on(HOST, "modprobe noiommu")
    assert int(on(HOST, "cat /proc/sys/kernel/tainted")) == OUT_OF_TREE, "signed, so not tainted for that"


def test_an_unsigned_one_does_not():
    on(HOST, "modprobe -r noiommu")
    said = load_unsigned(HOST)
    assert "rejected" in said or "not permitted" in said or "not available" in said, said
    on(HOST, "modprobe noiommu")


def test_adding_a_device_is_refused_by_lockdown():
    on(HOST, f"echo {NIC} > /sys/bus/pci/devices/{NIC}/driver/unbind")
    said = fails(HOST, f"/bin/echo {NIC} > /sys/module/noiommu/parameters/add")
    on(HOST, f"echo {NIC} > /sys/bus/pci/drivers_probe; udevadm settle")
    assert "Operation not permitted" in said, said
    assert "ockdown" in on(HOST, "dmesg | tail -20")


def test_and_reported_as_such():
    result = module(HOST, "vfio_binding", devices=[{"address": NIC}], backend="dkms", accept_unsafe=True)
    assert result["refusals"][0]["code"] == "lockdown", result


def test_absent_takes_the_module_back():
    assert module(HOST, "dkms_module", name="noiommu", state="absent")["changed"]
    assert changes_since_baseline(HOST) == []
