# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How Sphinx makes the documentation site; `make docs` calls it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

HERE = Path(__file__).resolve().parent
GALAXY = yaml.safe_load((HERE.parents[1] / "galaxy.yml").read_text(encoding="utf-8"))

project = f"{GALAXY['namespace']}.{GALAXY['name']}"
project_copyright = f"{project} contributors"
version = release = GALAXY["version"]
root_doc = "index"
language = "en"

extensions = ["myst_parser", "sphinx_antsibull_ext", "sphinx_copybutton", "sphinxcontrib.mermaid"]
myst_fence_as_directive = ["mermaid"]
myst_heading_anchors = 4
copybutton_exclude = ".linenos, .gp, .go"  # the prompt and the output of a console
pygments_style = "default"
pygments_dark_style = "monokai"
antsibull_color_scheme = "none"  # site.css has colours for both schemes

html_theme = "furo"
html_title = f"{project} {release}"
html_static_path = [str(HERE / "site.css"), str(HERE / "site.js")]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_copy_source = False
html_show_sphinx = False

ANSIBLE = "https://docs.ansible.com/ansible/latest/"
# What antsibull-docs refers to in Ansible's own documentation, so that no network is needed to look it up.
LABELS = {
    "action_plugins": "plugins/action.html",
    "ansible_configuration_settings": "reference_appendices/config.html",
    "common_return_values": "reference_appendices/common_return_values.html",
}


def link_to_ansible(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, text: nodes.Element
) -> nodes.Element | None:
    """Resolve a label of Ansible's documentation."""
    page = LABELS.get(node["reftarget"])
    return nodes.reference("", "", text, refuri=ANSIBLE + page) if page else None


def drop_contents(app: Sphinx, doctree: nodes.document) -> None:
    """Remove the lists of contents that antsibull-docs writes: the theme has its own beside each page, and objects."""
    for topic in [topic for topic in doctree.findall(nodes.topic) if "contents" in topic["classes"]]:
        topic.parent.remove(topic)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register what is above with Sphinx."""
    app.connect("doctree-read", drop_contents)
    app.connect("missing-reference", link_to_ansible)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
