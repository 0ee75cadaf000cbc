"""Configure the documentation: Markdown pages, rendered with furo, and a reference generated from the code."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "kube-reconciler"
author = "The kube-reconciler authors"
copyright = "2026, the kube-reconciler authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "reference"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
default_role = "py:obj"  # a name in a docstring links to its entry, if it has one
suppress_warnings = ["ref.python"]  # a name that several packages have: the nearest one is linked
html_theme = "furo"
html_title = "kube-reconciler"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_js_files = ["copy.js"]
html_show_sourcelink = False
myst_heading_anchors = 3
autodoc_member_order = "groupwise"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
add_module_names = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"
napoleon_custom_sections = [("Class keywords", "params_style")]
napoleon_use_ivar = True
napoleon_use_rtype = False
