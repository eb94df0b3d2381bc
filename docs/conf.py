"""The site: `uv run --extra all --group docs python -m docs html` builds it into build/site."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

project = "three-tabs"
author = "the three-tabs authors"
project_copyright = "2026, the three-tabs authors"

extensions = ["myst_parser", "sphinx_design", "docs.tabs"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["examples"]
nitpicky = True
smartquotes_action = "qe"  # no dashes: `--compile` is an option
myst_html_meta = {
    "description": "Dive into Deep Learning's image augmentation and Kaggle CIFAR-10 in PyTorch, MXNet and "
    "TensorFlow, side by side, with measured differences."
}
html_theme = "furo"
html_title = "three-tabs"
html_theme_options = {
    "top_of_page_buttons": [],  # MyST as it is written says nothing to a reader
    "light_css_variables": {"color-code-background": "#f6f8fa"},  # comments keep a contrast of 7
}
html_copy_source = False
html_use_index = False
html_static_path = ["_static"]
html_css_files = ["three-tabs.css"]
html_favicon = "_static/favicon.svg"
html_js_files = ["side-by-side.js"]
# Two palettes whose colours have enough contrast on their backgrounds, light and dark.
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"
