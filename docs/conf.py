"""Configure the documentation: Markdown pages, rendered with furo."""

project = "kube-reconciler"
author = "The kube-reconciler authors"
copyright = "2026, the kube-reconciler authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "kube-reconciler"
myst_heading_anchors = 3
suppress_warnings = ["myst.xref_missing"]
autodoc_member_order = "groupwise"
