"""The site: `uv run --extra all --group docs python -m docs html` builds it into build/site."""

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from docs.repository import repository  # noqa: E402

about = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
address = repository()  # without one, pages have no links to the source

project = about["name"]
version = release = about["version"]
author = "the three-tabs authors"
project_copyright = "2026, the three-tabs authors"

extensions = ["myst_parser", "sphinx_copybutton", "sphinx_design", "docs.tabs", "docs.markup"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["examples", "templates"]
templates_path = ["templates"]
nitpicky = True
# The types in the signatures of the Python API are not links.
nitpick_ignore_regex = [("py:.*", ".*")]
python_maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"
smartquotes_action = "qe"  # no dashes: `--compile` is an option
copybutton_selector = "div:not(.output) > div.highlight > pre"
myst_html_meta = {
    "description": "Dive into Deep Learning's image augmentation and Kaggle CIFAR-10 in PyTorch, MXNet and "
    "TensorFlow, side by side, with measured differences."
}
html_theme = "furo"
html_title = "three-tabs"
html_theme_options = {
    "source_repository": address,
    "source_branch": "main",
    "source_directory": "docs",
    # MyST as it is written says nothing to a reader, so there is no "view" button.
    "top_of_page_buttons": ["edit"] if address else [],
    "light_css_variables": {"color-code-background": "#f6f8fa"},  # comments keep a contrast of 7
}
html_context = {"repository": address}
html_last_updated_fmt = "%Y-%m-%d"
html_copy_source = False
html_use_index = False
html_static_path = ["_static"]
html_css_files = ["three-tabs.css"]
html_favicon = "_static/favicon.svg"
html_js_files = ["side-by-side.js"]
# Two palettes whose colours have enough contrast on their backgrounds, light and dark.
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"
