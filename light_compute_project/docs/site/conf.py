"""Sphinx's settings for the documentation site; `tools/site.py` copies the pages beside this file."""

project = "Light Compute Project"
extensions = ["myst_parser"]
html_theme = "furo"
html_title = project
html_copy_source = html_show_sourcelink = False
myst_heading_anchors = 4
myst_enable_extensions = ["strikethrough", "tasklist"]
exclude_patterns = ["site/**"]
