"""What is changed in the HTML of Sphinx and Furo, for narrow columns and for screen readers."""

import re
from typing import Any

from sphinx.application import Sphinx

# A word of code in a sentence or a table that is longer than a narrow column, and where it may break.
LONG_NAME = re.compile(r'(?<=<span class="pre">)[^<]{16,}(?=</span>)')
BREAK = re.compile(r"([(/](?=[a-z_])|\.(?=\w{8})|=(?=(?:&quot;)?\w{12}))")
# The parameters of a long signature: a list of descriptions that describe no term.
PARAMETERS = re.compile(r"<dl>\n((?:<dd>.*</dd>\n)+)</dl>")


def readable(body: str) -> str:
    """Return the HTML of a page's text with long names that can break, and with valid tables and signatures."""
    body = LONG_NAME.sub(lambda found: BREAK.sub(r"\1<wbr>", found[0]), body)
    body = PARAMETERS.sub(
        lambda found: re.sub(r"<dd>(.*)</dd>", r'<div class="sig-parameter">\1</div>', found[1]),
        body,
    )
    return body.replace('<th class="head"><p></p></th>', '<td class="head"></td>')


def _change(*event: Any) -> None:
    context = event[3]
    if "body" in context:
        context["body"] = readable(context["body"])
    # A heading needs a level, and these are the names of lists of links.
    tree = context["furo_navigation_tree"]
    context["furo_navigation_tree"] = tree.replace(' role="heading"', "")


def setup(app: Sphinx) -> dict[str, Any]:
    """Change each page after Furo has added its own."""
    app.connect("html-page-context", _change, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
