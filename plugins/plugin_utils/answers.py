# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a host may answer. An answer must not change anything but the host's own result."""

from __future__ import annotations

from typing import Any, Iterable

from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._host import kernels as _kernels

# Keys of a result that Ansible keeps for later tasks, for every host if a task has run_once. Ansible itself drops the
# other keys of this kind (add_host, add_group, _ansible_*) from a module's answer.
_KEPT_BY_ANSIBLE = ("ansible_facts", "ansible_stats")
# Ansible sets this one itself, and drops it from a module's answer.
_BY_ANSIBLE = "discovered_interpreter_"
_LINES, _LINE = 12, 400
_KERNELS = 100  # of one host: a build host installs headers for each
_PACKAGES = _KERNELS + 20  # the headers, compilers and DKMS; each is a run of the package manager


def require_harmless(result: dict[str, Any]) -> dict[str, Any]:
    """Return a module's answer, or refuse one with keys that no module of this collection returns."""
    found = []
    for key in _KEPT_BY_ANSIBLE:
        kept = result.get(key) or {}
        names = [str(name) for name in (kept if isinstance(kept, dict) else [kept])]
        names = [name for name in names if not name.startswith(_BY_ANSIBLE)]
        if names:
            found.append("%s: %s" % (key, _cut(", ".join(sorted(names)))))
    if found:
        raise malformed("it contains facts or statistics, which would change what later tasks do", found)
    return result


def require_releases(kernels: Any, what: str) -> list[str]:
    """Return kernel releases that a host named, or refuse them."""
    if not isinstance(kernels, list):
        raise malformed("%s is not a list" % what, ["%s: %s" % (what, _cut(kernels))])
    if len(kernels) > _KERNELS:
        raise malformed("%s has too many entries" % what, ["%s: %d, at most %d" % (what, len(kernels), _KERNELS)])
    for kernel in kernels:
        _kernels.require_release(kernel, what)
    return kernels


def require_packages(packages: Any) -> list[str]:
    """Return the names of packages that a build host lacks, or refuse what are none."""
    if not isinstance(packages, list) or not all(isinstance(package, str) for package in packages):
        raise malformed("packages_missing is not a list of names", ["packages_missing: %s" % _cut(packages)])
    if len(packages) > _PACKAGES:
        evidence = ["packages_missing: %d, at most %d" % (len(packages), _PACKAGES)]
        raise malformed("packages_missing has too many entries", evidence)
    return packages


def require_failures(failed: Any) -> dict[str, list[str]]:
    """Return why a build host could not build for which kernels, or refuse what says no such thing."""
    if not isinstance(failed, dict):
        raise malformed("failed_kernels is not a table", ["failed_kernels: %s" % _cut(failed)])
    require_releases(list(failed), "failed_kernels")
    return {kernel: lines(why) for kernel, why in failed.items()}


def lines(said: Any) -> list[str]:
    """Return the reasons in a host's answer, as lines of bounded number and length."""
    if not isinstance(said, (list, tuple)):
        said = [said]
    return [_cut(line) for line in said[:_LINES]]


def reasons(results: Iterable[Any]) -> dict[str, list[str]]:
    """Return by kernel what the results of state=archived say about why there is no archive."""
    found: dict[str, list[str]] = {}
    for result in results:
        for kernel, said in (result.get("failed_kernels") or {}).items():
            host = result.get("item")
            found.setdefault(kernel, []).extend("%s: %s" % (host, line) if host else line for line in lines(said))
    return found


def malformed(why: str, evidence: list[str]) -> HostError:
    """Return the error for an answer that this collection's modules cannot have given."""
    return HostError(
        "answer",
        "The host's answer was not accepted: %s." % why,
        evidence=evidence,
        remedy="This collection's modules never do that. Find out what runs as ansible_python_interpreter on the"
        " host, and whether somebody else controls the host.",
    )


def _cut(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= _LINE else text[:_LINE] + "..."
