# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Send a kernel module's source or its prebuilt archives to the host, but only if the host has different ones."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from typing import Any

from ansible import constants as C
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._dkms import archive as archives
from ansible_collections.baremetal.noiommu.plugins.module_utils._dkms.source import (
    Source,
    digest,
    pack,
    read_conf,
    read_source,
)
from ansible_collections.baremetal.noiommu.plugins.module_utils._host import kernels as _kernels
from ansible_collections.baremetal.noiommu.plugins.plugin_utils import answers, settings

_MODULE = "baremetal.noiommu.dkms_module"
_SET_HERE = ("digest", "archive", "available", "archive_files", "destination", "unbuilt", "announced")
_LOOKED_AT = 20  # hosts, from the first, of which it is asked how long a build took


class ActionModule(ActionBase):
    """Asks the host with digests alone, then sends what it needs."""

    _supports_async = False
    _refreshed = False  # whether the package lists of the host were refreshed

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module, twice if something has to be sent."""
        super().run(tmp, task_vars)
        args = dict(self._task.args)
        self._vars = task_vars or {}
        try:
            settings.require_no_override(self._vars)
            builds = args.pop("builds", None) or []
            source = self._describe(args)
            state = args.get("state", "present")
            if state == "archived":
                return self._archive(args, source or {})
            if state == "present" and args.get("build", "on_host") == "prebuilt":
                return self._install_prebuilt(args, builds)
            return self._install(args, source, state)
        except HostError as exc:
            return {"failed": True, **exc.as_failure()}

    def _install(self, args: dict[str, Any], source: Source | None, state: str) -> dict[str, Any]:
        """Have the host build it, and send the source if the host has a different one."""
        result = self._call(args)
        needed = bool(result.pop("source_needed", False))
        if result.get("failed") or state != "present":
            return result
        to_build = answers.require_releases(result.pop("to_build", []), "to_build")
        if (needed or to_build) and source is not None and not self._task.check_mode:
            if needed:
                args["archive"] = self._send("source.tar.gz", pack(source))
            result = self._build(args, to_build)
        if not result.get("failed"):
            result["source_sent"] = needed
        return result

    def _build(self, args: dict[str, Any], kernels: list[str]) -> dict[str, Any]:
        """Have the host build, and say so first: nothing is seen of it until it has ended."""
        self._announce(kernels)
        started = time.monotonic()
        result = self._call({**args, "announced": True})
        result.pop("source_needed", None)
        if kernels and not result.get("failed"):
            result["build_seconds"] = max(1, round(time.monotonic() - started))
        return result

    def _announce(self, kernels: list[str]) -> None:
        if kernels:
            where, elsewhere = self._vars.get("inventory_hostname", "the host"), self._took_elsewhere()
            text = "%s builds the kernel module for %s, and is waited for.%s" % (where, ", ".join(kernels), elsewhere)
            Display().display(text)

    def _took_elsewhere(self) -> str:
        """Say how long it took a host of an earlier batch; there are no figures that hold for every host."""
        hostvars = self._vars.get("hostvars")
        for name in (self._vars.get("ansible_play_hosts_all") or [])[:_LOOKED_AT]:
            seconds = ((hostvars.raw_get(name) or {}).get("kmod_result") or {}).get("build_seconds")
            if isinstance(seconds, int):
                return " It took %s %d s." % (name, seconds)
        return ""

    def _call(self, args: dict[str, Any]) -> dict[str, Any]:
        """Ask the host; its answer affects only its own result."""
        result = self._execute_module(module_name=_MODULE, module_args=args, task_vars=self._vars)
        return answers.require_harmless(result)

    # --- archives ---

    def _stored(self, args: dict[str, Any]) -> tuple[str, dict[str, archives.StoredArchive]]:
        """The directory of archives, and the archives of this source in it."""
        if not args.get("archives"):
            raise AnsibleActionFail("archives is required: the directory on the controller that holds them.")
        directory = self._loader.path_dwim(os.path.expanduser(str(args["archives"])))
        return directory, archives.stored(directory, args["name"], args["version"], args["digest"])

    def _archive(self, args: dict[str, Any], source: Source) -> dict[str, Any]:
        """Have the host build what the directory lacks, and fetch it."""
        for kernel in args.get("kernels") or []:
            _kernels.require_release(kernel, "kernels")
        directory, there = self._stored(args)
        args["kernels"] = [kernel for kernel in args.get("kernels") or [] if kernel not in there]
        nothing = {"changed": False, "archived": {}, "failed_kernels": {}, "packages_missing": []}
        if not args["kernels"]:
            return {**nothing, "name": args["name"], "version": args["version"]}
        lacking: dict[str, str] = {}
        try:
            result = self._have_built(args, source, directory, lacking)
        except HostError as exc:
            result = {"failed": True, **exc.as_failure()}
        except AnsibleError as exc:  # such as one that cannot be reached
            result = {"failed": True, "msg": "The build host could not be asked: %s" % exc}
        if result.get("failed"):
            # Reported to every host that needs one of these kernels.
            result["failed_kernels"] = {kernel: answers.lines(result.get("msg")) for kernel in args["kernels"]}
        for kernel, why in result["failed_kernels"].items():
            why += [
                "%s could not be installed: %s" % (package, reason)
                for package, reason in lacking.items()
                if _concerns(package, kernel, args["kernels"])
            ]
        return result

    def _have_built(
        self, args: dict[str, Any], source: Source, directory: str, lacking: dict[str, str]
    ) -> dict[str, Any]:
        """Install what the build needs, have it built and fetch it; note in ``lacking`` what could not be installed."""
        result = self._call(args)  # without the source, nothing is built
        result.pop("source_needed", None)
        result.pop("made", None)
        if result.get("failed"):
            return result
        # Computed on the host from releases that were checked, and installed there and nowhere else.
        for package in answers.require_packages(result.get("packages_missing", [])):
            why = self._install_package(package)
            if why is not None:
                lacking[package] = why
        if self._task.check_mode:
            hopeless = [
                kernel
                for kernel in args["kernels"]
                if any(_concerns(package, kernel, args["kernels"]) for package in lacking)
            ]
            result["archived"] = {kernel: directory for kernel in args["kernels"] if kernel not in hopeless}
            result["failed_kernels"] = {kernel: [] for kernel in hopeless}
            return result
        args["archive"] = self._send("source.tar.gz", pack(source))
        args["destination"] = self._connection._shell.tmpdir
        self._announce(args["kernels"])
        result = self._call(args)
        result.pop("source_needed", None)
        made = result.pop("made", {})
        if result.get("failed"):
            return result
        result["failed_kernels"] = answers.require_failures(result.get("failed_kernels"))
        result["archived"] = {
            kernel: self._fetch(args, kernel, checksum, directory) for kernel, checksum in self._made(args, made)
        }
        return result

    def _install_package(self, name: str) -> str | None:
        """Install one package on the host; return why that failed. The others are still tried."""
        why = self._try_package({"name": name, "state": "present"})
        if why is None or self._refreshed:
            return why
        self._refreshed = True  # once: a fresh image has no package lists, or has old ones
        return self._try_package({"name": name, "state": "present", "update_cache": True})

    def _try_package(self, args: dict[str, Any]) -> str | None:
        task = self._task.copy()
        task.args = args
        action = self._shared_loader_obj.action_loader.get(
            "ansible.builtin.package",
            task=task,
            connection=self._connection,
            play_context=self._play_context,
            loader=self._loader,
            templar=self._templar,
            shared_loader_obj=self._shared_loader_obj,
        )
        try:
            result = action.run(task_vars=self._vars)
        except AnsibleError as exc:
            result = {"failed": True, "msg": str(exc)}
        if not result.get("failed"):
            return None
        return " ".join(answers.lines(result.get("msg") or "no reason given"))

    @staticmethod
    def _made(args: dict[str, Any], made: Any) -> list[tuple[str, str]]:
        """Return kernel and checksum of what was built, if it is what was asked for."""
        found = []
        for kernel, checksum in made.items() if isinstance(made, dict) else [(made, None)]:
            if kernel not in args["kernels"] or not isinstance(checksum, str):
                raise answers.malformed(
                    "it names an archive that was not asked for", answers.lines("made: %s: %s" % (kernel, checksum))
                )
            found.append((kernel, checksum))
        return found

    def _fetch(self, args: dict[str, Any], kernel: str, checksum: str, directory: str) -> str:
        """Fetch an archive and keep it. No name of a file, here or there, comes from the build host."""
        remote = self._connection._shell.join_path(args["destination"], archives.remote_name(kernel))
        with tempfile.NamedTemporaryFile(dir=C.DEFAULT_LOCAL_TMP) as local:
            self._connection.fetch_file(remote, local.name)
            with open(local.name, "rb") as stream:
                content = stream.read()
        archives.check_sum(content, checksum, remote)
        archive = archives.unpack(content, remote)
        wanted = (args["name"], args["version"], args["digest"], kernel)
        if archive[:4] != wanted:
            raise answers.malformed(
                "it made an archive of something else",
                answers.lines(["it is for: %s" % " ".join(archive[:4]), "wanted: %s" % " ".join(wanted)]),
            )
        return archives.store(directory, archives.file_name(*archive[:5]), content)

    def _install_prebuilt(self, args: dict[str, Any], builds: list[dict[str, Any]]) -> dict[str, Any]:
        """Tell the host which archives there are and why others are not, and send those that it wants."""
        _directory, there = self._stored(args)
        args["available"] = {kernel: archive.sha256 for kernel, archive in there.items()}
        args["unbuilt"] = answers.reasons(builds)
        if self._task.check_mode:
            for kernel in {kernel for build in builds for kernel in build.get("archived") or {}}:
                args["available"].setdefault(kernel, "still to be built")
        result = self._call(args)
        needed = result.pop("archives_needed", [])
        answers.require_releases(needed, "archives_needed")
        if not self._task.check_mode and not there.keys() >= set(needed):
            raise answers.malformed("it asks for an archive that it was not offered", answers.lines(needed))
        if needed and not result.get("failed") and not self._task.check_mode:
            args["archive_files"] = {}
            for number, kernel in enumerate(needed):
                content = archives.load(there[kernel])
                if args.get("archive_keyring"):
                    self._verify(there[kernel].path, content, str(args["archive_keyring"]))
                args["archive_files"][kernel] = self._send("module%d.dkms.tar.gz" % number, content)
            result = self._call(args)
            result.pop("archives_needed", None)
        if not result.get("failed"):
            result["source_sent"] = False
        return result

    def _verify(self, path: str, content: bytes, keyring: str) -> None:
        """Refuse an archive that no key of the keyring signed: exactly these bytes, which are then sent."""
        keyring = self._loader.path_dwim(os.path.expanduser(keyring))
        signature = next((path + end for end in (".sig", ".asc") if os.path.isfile(path + end)), None)
        said = "no %s.sig or .asc" % path
        if signature is not None:
            try:
                done = subprocess.run(
                    ["gpgv", "--keyring", keyring, signature, "-"], input=content, capture_output=True, check=False
                )
            except OSError as exc:
                said = "gpgv: %s" % exc
            else:
                if done.returncode == 0:
                    return
                words = done.stderr.decode("utf-8", "replace").strip()
                said = "gpgv --keyring %s %s: rc %d: %s" % (keyring, signature, done.returncode, words)
        raise HostError(
            "archive_signature",
            "A prebuilt archive is not signed by a key of the keyring.",
            evidence=[said],
            remedy="Find out where it comes from, then sign it (gpg --detach-sign), or leave archive_keyring"
            " (noiommu_kmod_archive_keyring) out.",
        )

    def _describe(self, args: dict[str, Any]) -> Source | None:
        """Fill in name, version and digest of the source on the controller."""
        for key in _SET_HERE:
            if key in args:
                raise AnsibleActionFail("%s is set by the action plugin; leave it out." % key)
        given = args.get("source")
        present = args.get("state", "present") != "absent"
        if given is None:
            if present:
                raise AnsibleActionFail("source is required unless state=absent: give the directory with dkms.conf.")
            return None
        if not present and args.get("name"):
            return None
        directory = self._loader.path_dwim(os.path.expanduser(str(given)))
        if not os.path.isdir(directory):
            raise HostError(
                "source",
                "There is no source directory %s on the controller." % directory,
                evidence=["source: %s" % given],
                remedy="Give the directory that holds dkms.conf.",
            )
        source = read_source(directory)
        conf = read_conf(source, directory)
        for key, value in conf._asdict().items():
            if args.setdefault(key, value) != value and present:
                raise HostError(
                    "source",
                    "The source is not the declared %s." % key,
                    evidence=["%s/dkms.conf: %s, declared: %s" % (directory, value, args[key])],
                    remedy="Leave %s out, or give the right source." % key,
                )
        if present:
            args["digest"] = digest(source)
        return source

    def _send(self, name: str, packed: bytes) -> str:
        """Put a file into the task's temporary directory on the host; Ansible removes that afterwards."""
        if self._connection._shell.tmpdir is None:
            self._make_tmp_path()
        remote = self._connection._shell.join_path(self._connection._shell.tmpdir, name)
        with tempfile.NamedTemporaryFile(dir=C.DEFAULT_LOCAL_TMP, suffix=".tar.gz") as local:
            local.write(packed)
            local.flush()
            self._transfer_file(local.name, remote)
        self._fixup_perms2((self._connection._shell.tmpdir, remote))
        return remote


def _concerns(package: str, kernel: str, kernels: list[str]) -> bool:
    """Whether a package is needed for a kernel: its headers, or what a build for any kernel needs."""
    return kernel in package or not any(other in package for other in kernels)
