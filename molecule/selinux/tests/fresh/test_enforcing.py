# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The policy is in force, and what it denies by itself is kept, to compare with."""

from __future__ import annotations

import json

from denials import denials, parse
from live import RUN, on

HOST = "mike"


def test_the_policy_is_in_force():
    assert on(HOST, "getenforce").strip() == "Enforcing"
    assert on(HOST, "cat /proc/1/attr/current").split(":")[2] == "init_t"


def test_the_image_is_labelled():
    assert (
        on(HOST, "restorecon -nvR /etc/systemd /etc/udev /usr/local /usr/sbin 2>&1 | grep -c relabel || true").strip()
        == "0"
    )


def test_a_denial_would_be_seen():
    line = 'audit(1.2:3): avc:  denied  { read } for  pid=7 comm="x" scontext=a:b:c tcontext=d:e:f tclass=file'
    assert parse(line) == {"read x a:b:c d:e:f file"}


def test_what_the_host_has_anyway_is_kept(capsys):
    found = sorted(denials(HOST))
    with capsys.disabled():
        print("\n" + "\n".join(found))
    (RUN / "baseline/denials.json").write_text(json.dumps(found), encoding="utf-8")
