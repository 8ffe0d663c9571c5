# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hosts that are nothing but answers: in place of Python, Ansible runs a program that says what a test wants."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import ansible_collections
import yaml

# What a module's arguments have to contain, and what is answered then: a result, or a text that is printed as it is.
Answers = dict[str, list[tuple[str, dict[str, Any] | str]]]

_INTERPRETER = """#!%s -IS
import ast, json, re, shutil, sys
text = sys.stdin.read()
sent = json.loads(ast.literal_eval(re.search(r"'{.ANSIBLE_MODULE_ARGS.*}'", text).group(0)))["ANSIBLE_MODULE_ARGS"]
module = sent["_ansible_module_name"].rpartition(".")[2]
args = json.dumps({key: value for key, value in sent.items() if not key.startswith("_ansible_")})
with open(%r, "a", encoding="utf-8") as log:
    print(module, args, file=log)
with open(%r, encoding="utf-8") as stream:
    answers = json.load(stream)
answer = next((answer for part, answer in answers.get(module, []) if part in args), {"changed": False})
if isinstance(answer, str):
    print(answer)
    sys.exit()
for name, path in answer.pop("_copies", {}).items():  # what the host leaves where it was asked to
    shutil.copy(path, sent["destination"] + "/" + name)
print(json.dumps(answer))
"""


class Played(NamedTuple):
    """What a run printed, and what it asked of each host: each module with its arguments."""

    text: str
    asked: dict[str, list[str]]

    def said_of(self, host: str) -> str:
        """Return the results of one host."""
        lines, name = [], ""
        for line in self.text.splitlines():
            match = re.match(r"(?:fatal|ok|changed|failed|skipping): \[(\S+?)(?: -> \S+)?\]", line)
            name = match.group(1) if match else "" if line.startswith(("TASK", "PLAY")) else name
            lines += [line] if name == host else []
        return "\n".join(lines)


class Fleet:
    """A directory with an inventory of such hosts, from which playbooks are run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._hosts: dict[str, dict[str, Any]] = {}
        self._others: dict[str, None] = {}
        (path / "facts").mkdir()

    def add(
        self, name: str, answers: Answers, facts: dict[str, Any] | None = None, group: bool = True, **own: Any
    ) -> None:
        """Add a host, with facts that Ansible has kept from an earlier run."""
        interpreter, told = self.path / (name + ".python"), self.path / (name + ".json")
        told.write_text(json.dumps(answers))
        interpreter.write_text(_INTERPRETER % (sys.executable, str(self._log(name)), str(told)))
        interpreter.chmod(0o755)
        if facts:
            # As ansible-core keeps them before 2.19, and since.
            (self.path / "facts" / name).write_text(json.dumps(facts))
            (self.path / "facts" / ("s1_" + name)).write_text(json.dumps({"__payload__": json.dumps(facts)}))
        declared = {
            "ansible_connection": "local",
            "ansible_become": False,
            "ansible_pipelining": True,
            "ansible_python_interpreter": str(interpreter),
            **own,
        }
        (self._hosts if group else self._others)[name] = declared  # type: ignore[assignment]

    def _log(self, name: str) -> Path:
        return self.path / (name + ".log")

    def play(
        self, playbook: str, limit: str = "all", inject: bool = True, options: tuple[str, ...] = (), **variables: Any
    ) -> Played:
        """Run a playbook of the collection; ``inject`` is whether facts are variables, as they are by default."""
        inventory = {"noiommu": {"hosts": self._hosts, "vars": variables}, "others": {"hosts": self._others}}
        (self.path / "hosts.yml").write_text(yaml.safe_dump(inventory))
        (self.path / "ansible.cfg").write_text(
            "[defaults]\nfact_caching = jsonfile\nfact_caching_connection = %s/facts\nforks = 4\n"
            "inject_facts_as_vars = %s\n" % (self.path, inject)
        )
        for name in (*self._hosts, *self._others):
            self._log(name).write_text("")
        installed = str(Path(next(iter(ansible_collections.__path__))).parent)
        done = subprocess.run(
            [
                os.environ.get("NOIOMMU_ANSIBLE_PLAYBOOK") or str(Path(sys.executable).with_name("ansible-playbook")),
                "-i",
                "hosts.yml",
                "--limit",
                limit,
                *options,
                "baremetal.noiommu." + playbook,
            ],
            cwd=self.path,
            capture_output=True,
            text=True,
            check=False,
            timeout=1200,
            env={
                **os.environ,
                "ANSIBLE_CONFIG": str(self.path / "ansible.cfg"),
                "ANSIBLE_COLLECTIONS_PATH": installed,
                "ANSIBLE_NOCOLOR": "1",
                "ANSIBLE_HOME": str(self.path / "home"),
            },
        )
        return Played(
            done.stdout + done.stderr,
            {name: self._log(name).read_text().splitlines() for name in (*self._hosts, *self._others)},
        )
