# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The script of the boot unit, other software that sets page counts, and killed runs."""

from __future__ import annotations

import re
import subprocess
from typing import Any

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._hugepages.boot_files import SCRIPT, UNIT
from ansible_collections.baremetal.noiommu.plugins.modules import hugepages
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_module import FakeModule
from ansible_collections.baremetal.noiommu.tests.unit.support.hugetlb import (
    M2,
    HugetlbRoot,
    Idle,
    declaration,
    run,
    warned,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.killing import Killer, left
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree


def test_the_script_of_the_boot_unit_reserves_and_complains(root: HugetlbRoot, tree: Tree) -> None:
    """Run as it is, on the tree's paths: a file of the tree takes any number, so only the second pool falls short."""
    run(root, [{"size": "2M", "count": 4, "node": 0}, {"size": "2M", "count": 5, "node": 1}])
    text = re.sub("/(sys|proc)/", r"%s/\1/" % tree.base, tree.root.read_text(SCRIPT))
    pool = tree.at("/sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages")
    pool.unlink()
    pool.symlink_to("/dev/null")
    done = subprocess.run(["sh", "-c", text.replace("sleep 0.25", ":")], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines() == [
        "2M on NUMA node 0: 4 pages",
        "2M on NUMA node 1: SHORTFALL,  of 5 pages; Node 1 MemFree: 4194304 kB",
    ]


def test_the_boot_unit_comes_after_sysctl(root: HugetlbRoot, tree: Tree) -> None:
    run(root, [{"size": "2M", "count": 5}])
    assert "After=systemd-sysctl.service\n" in tree.root.read_text(UNIT)


@pytest.mark.parametrize("jobs, is_enabled, asked", [(["7", "7", ""], True, 3), (["7"] * 30, True, 20), ([], False, 0)])
def test_the_boot_script_waits_for_dpdk_service_but_not_for_ever(
    root: HugetlbRoot, tree: Tree, jobs: list[str], is_enabled: bool, asked: int
) -> None:
    """The boot waits for the script, and dpdk.service has no time limit."""
    run(root, [{"size": "2M", "count": 5}])
    if is_enabled:
        tree.file(WANTS_DIR + "dpdk.service")
    tree.file("/jobs", "\n".join(jobs) + "\n")
    text = re.sub("/(sys|proc|etc)/", r"%s/\1/" % tree.base, tree.root.read_text(SCRIPT)).replace("sleep 1", ":")
    systemctl = 'exec 3< %s/jobs; systemctl() { echo "$*" >> %s/asked; read -r job <&3; echo "$job"; }\n'
    # A function reads in the subshell of $(...) from the same open file.
    subprocess.run(["sh", "-c", systemctl % (tree.base, tree.base) + text], capture_output=True, check=False)
    lines = (tree.root.read_text("/asked") or "").splitlines()
    assert lines == ["show --property=Job --value dpdk.service"] * asked


def test_a_number_that_sysctl_sets_is_named_with_its_line(root: HugetlbRoot, tree: Tree) -> None:
    tree.file("/etc/sysctl.d/80-vpp.conf", "\n# Number of 2MB hugepages desired\nvm.nr_hugepages=1024\n")
    assert warned(root, {"size": "2M", "count": 5}) == [
        "/etc/sysctl.d/80-vpp.conf, line 3, sets vm.nr_hugepages to 1024, but declared is 2M: 5. Whenever it is applied"
        ", as by `sysctl --system` or the upgrade of a package, it replaces the declared pages."
        " Remove the line, or have it say 5; a file of the same name in /etc/sysctl.d replaces one elsewhere."
    ]
    assert warned(root, {"size": "2M", "count": 1024}) == warned(root, {"size": "1G", "count": 1}) == []


def test_a_total_that_sysctl_sets_never_says_what_each_node_has(root: HugetlbRoot, tree: Tree) -> None:
    tree.file("/etc/sysctl.d/80-vpp.conf", "vm.nr_hugepages=8")
    pools = [{"size": "2M", "count": 6, "node": 0}, {"size": "2M", "count": 2, "node": 1}]
    (text,) = warned(root, *pools)
    assert "declared is 2M on NUMA node 0: 6, 2M on NUMA node 1: 2." in text and "Remove the line; a file" in text


SEVEN, AS_DECLARED = "vm.nr_hugepages = 7", "vm.nr_hugepages=5"


@pytest.mark.parametrize(
    ("files", "where"),
    [
        ({"/usr/lib/sysctl.d/80-vpp.conf": SEVEN}, "/usr/lib/sysctl.d/80-vpp.conf, line 1,"),
        ({"/run/sysctl.d/a.conf": "; no\n-vm/nr_hugepages=7"}, "/run/sysctl.d/a.conf, line 2,"),
        ({"/etc/sysctl.conf": "#%s\n%s\nvm.nr_hugepages_mempolicy=1" % (SEVEN, SEVEN)}, "/etc/sysctl.conf, line 2,"),
        ({"/usr/lib/sysctl.d/80-vpp.conf": SEVEN, "/etc/sysctl.d/80-vpp.conf": ""}, None),
        ({"/usr/lib/sysctl.d/80-vpp.conf": SEVEN, "/etc/sysctl.d/90-mine.conf": AS_DECLARED}, None),
        ({"/usr/lib/sysctl.d/99.conf": SEVEN, "/etc/sysctl.d/90.conf": AS_DECLARED}, "/usr/lib/sysctl.d/99.conf"),
        ({"/etc/sysctl.d/80-vpp.conf.bak": SEVEN}, None),
    ],
)
def test_of_all_settings_the_one_that_counts_is_named(
    root: HugetlbRoot, tree: Tree, files: dict[str, str], where: str | None
) -> None:
    for path, text in files.items():
        tree.file(path, text)
    texts = warned(root, {"size": "2M", "count": 5})
    assert [text.startswith(where or "?") for text in texts] == ([True] if where else [])


# --- what others do to the pools ---

WANTS_DIR = "/etc/systemd/system/multi-user.target.wants/"


@pytest.mark.parametrize(
    ("conf", "said"),
    [
        ("# NR_2M_PAGES=64", []),
        ("NR_2M_PAGES=0", []),
        ("NR_2M_PAGES=5", []),
        ("NR_2M_PAGES=64", ["line 1, has dpdk.service reserve 64 pages of 2M, but declared is 2M: 5."]),
        ("NR_2M_PAGES=64\nNR_2M_PAGES=5", []),
        ('#\nNR_2M_PAGES="0 64"', ["line 2, has dpdk.service reserve 64 pages of 2M on NUMA node 1,"]),
        ("NR_2M_PAGES='32 64'", ["32 pages of 2M on NUMA node 0", "64 pages of 2M on NUMA node 1"]),
        ("NR_1G_PAGES=2", []),
        ("NR_2M_PAGES=$(nproc)", []),
    ],
)
def test_pages_of_dpdk_service(root: HugetlbRoot, tree: Tree, conf: str, said: list[str]) -> None:
    tree.file("/etc/dpdk/dpdk.conf", conf)
    assert warned(root, {"size": "2M", "count": 5}) == []  # it does not run at boot
    tree.file(WANTS_DIR + "dpdk.service")
    texts = warned(root, {"size": "2M", "count": 5})
    assert len(texts) == len(said) and all(part in text for part, text in zip(said, texts))
    assert all(text.startswith("/etc/dpdk/dpdk.conf, line ") for text in texts)


def test_pages_of_dpdk_service_by_node(root: HugetlbRoot, tree: Tree) -> None:
    tree.file(WANTS_DIR + "dpdk.service")
    tree.file("/etc/dpdk/dpdk.conf", 'NR_2M_PAGES="6 3"')
    pools = [{"size": "2M", "count": 6, "node": 0}, {"size": "2M", "count": 2, "node": 1}]
    (text,) = warned(root, *pools)
    assert "3 pages of 2M on NUMA node 1" in text
    assert warned(root, pools[0]) == []  # node 1 is nobody's but dpdk.service's


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("[sysctl]\nvm.nr_hugepages=5", None),
        ("[sysctl]\nvm.nr_hugepages=512", "line 2, of an active profile of TuneD sets vm.nr_hugepages to 512,"),
        ("[sysctl]\nvm.nr_hugepages=${pages}", "sets vm.nr_hugepages to ${pages},"),
        ("[sysctl]\n# vm.nr_hugepages=512", None),
        ("[vm]\nvm.nr_hugepages=512", None),
        ("[sysfs]\n/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages=7", "nr_hugepages to 7"),
        ("[sysfs]\n/sys/devices/system/node/node*/hugepages/hugepages-2048kB/nr_hugepages=2", "node*"),
        ("[sysfs]\n/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages=7", None),
        ("[bootloader]\ncmdline_mine=+hugepagesz=1G hugepages=8 quiet", None),
        (
            "[bootloader]\ncmdline_mine=hugepagesz=2M hugepages=8",
            "hugepagesz=2M hugepages=8 on the kernel command line",
        ),
        ("[bootloader]\ncmdline=+hugepages=8", "hugepages=8 on the kernel command line"),
    ],
)
def test_pages_of_an_active_profile_of_tuned(root: HugetlbRoot, tree: Tree, lines: str, said: str | None) -> None:
    tree.file("/etc/tuned/mine/tuned.conf", lines)
    tree.file("/etc/tuned/active_profile", "mine")
    assert warned(root, {"size": "2M", "count": 5}) == []  # it does not run at boot
    tree.file(WANTS_DIR + "tuned.service")
    texts = warned(root, {"size": "2M", "count": 5})
    assert len(texts) == (said is not None) and all((said or "?") in text for text in texts)
    tree.file("/etc/tuned/active_profile", "balanced")
    assert warned(root, {"size": "2M", "count": 5}) == []


def test_profiles_of_tuned_include_and_replace_others(root: HugetlbRoot, tree: Tree) -> None:
    tree.file(WANTS_DIR + "tuned.service")
    tree.file("/etc/tuned/active_profile", "balanced mine")
    tree.file("/etc/tuned/mine/tuned.conf", "[main]\ninclude=-absent, base;mine")  # and itself, for ever
    tree.file("/usr/lib/tuned/base/tuned.conf", "[sysctl]\nvm.nr_hugepages=1")
    (text,) = warned(root, {"size": "2M", "count": 5})
    assert text.startswith("/usr/lib/tuned/base/tuned.conf, line 2,")
    tree.file("/etc/tuned/base/tuned.conf", "\n[sysctl]\nvm.nr_hugepages = 2")
    (text,) = warned(root, {"size": "2M", "count": 5})
    assert text.startswith("/etc/tuned/base/tuned.conf, line 3,")
    tree.file("/etc/tuned/mine/tuned.conf", "[main]\ninclude=base\n[sysctl]\nvm.nr_hugepages=5")
    assert warned(root, {"size": "2M", "count": 5}) == []


@pytest.mark.parametrize("name", ["kubelet", "k3s-agent", "kubelite", "bash"])
def test_a_kubelet_has_to_count_again(root: HugetlbRoot, tree: Tree, name: str) -> None:
    tree.file("/proc/4711/comm", name)
    module = FakeModule(declaration(pools=[{"size": "2M", "count": 5}]))
    for told in (name != "bash", False):  # only where the numbers changed
        module.warnings.clear()
        hugepages.hugepages(module, root, Idle())
        assert (
            module.warnings
            == [
                "%s (process 4711) counts the pages of this host only when it starts: restart its service, so that"
                " Kubernetes knows the new numbers." % name
            ]
            * told
        )


ON_NODE_0, ON_NODE_1, ANYWHERE = ([{"size": "2M", "count": 64, "node": node}] for node in (0, 1, None))


@pytest.mark.parametrize(
    ("first", "second"), [(ANYWHERE, []), (ON_NODE_0, ON_NODE_1), (ON_NODE_0, ANYWHERE), (ANYWHERE, ON_NODE_0)]
)
def test_a_run_killed_anywhere_is_finished_by_the_next(
    root: HugetlbRoot, monkeypatch: pytest.MonkeyPatch, first: list[dict[str, Any]], second: list[dict[str, Any]]
) -> None:
    root.set(M2, 1, 7)
    for folder in ("/var/lib", "/usr/local/lib/noiommu", "/etc/systemd/system/multi-user.target.wants"):
        root.tree.dir(folder)
    before = left(root.tree)
    killer = Killer(monkeypatch, (root, "write_sysfs"))
    for steps in killer.each(lambda: run(root, first), lambda: run(root, second)):
        run(root, state="absent")
        assert not run(root, state="absent")["changed"]
        root.tree.dir("/usr/local/lib/noiommu")  # vfio_binding removes it if nothing is in it
        assert left(root.tree) == before, steps
