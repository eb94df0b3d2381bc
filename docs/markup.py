"""Change the HTML of Sphinx and Furo for narrow columns and for screen readers."""

import re
from typing import Any

from sphinx.application import Sphinx

# A code word in a sentence or table that is longer than a narrow column, and the places where it may break.
LONG_NAME = re.compile(r'(?<=<span class="pre">)[^<]{16,}(?=</span>)')
BREAK = re.compile(r"([(/](?=[a-z_])|\.(?=\w{8})|=(?=(?:&quot;)?\w{12}))")
# The parameters of a long signature: a description list without terms.
PARAMETERS = re.compile(r"<dl>\n((?:<dd>.*</dd>\n)+)</dl>")


def readable(body: str) -> str:
    """Return a page's HTML with breakable long names and with valid tables and signatures."""
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
    # These are titles of lists of links, not headings.
    tree = context["furo_navigation_tree"]
    context["furo_navigation_tree"] = tree.replace(' role="heading"', "")


def setup(app: Sphinx) -> dict[str, Any]:
    """Change each page after Furo's own changes."""
    app.connect("html-page-context", _change, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
