"""`python -m docs`: build the site, write the notebooks, make the pages' pictures and numbers again."""

import argparse
import subprocess
import sys

from docs.figures import PAGES, ROOT, make
from docs.notebooks import write_notebooks


def main(arguments: list[str]) -> int:
    """Do what is asked, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m docs", description=__doc__)
    commands = parser.add_subparsers(dest="what", required=True)
    commands.add_parser("html", help="the site, into build/site")
    commands.add_parser(
        "notebooks", help="a notebook of each chapter and framework, into build/notebooks"
    )
    figures = commands.add_parser(
        "figures", help="the pictures and numbers of the pages, by the commands that the pages name"
    )
    figures.add_argument(
        "pages",
        nargs="*",
        help=f"of {', '.join(PAGES)}; without any, all of them, in an hour or more",
    )
    chosen = parser.parse_args(arguments)
    if chosen.what == "html":
        # Warnings are errors: a link that leads nowhere, a function that was renamed.
        sphinx = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-b", "html"]
        return subprocess.run([*sphinx, "docs", "build/site"], cwd=ROOT, check=False).returncode
    if chosen.what == "notebooks":
        for path in write_notebooks(ROOT / "build" / "notebooks"):
            print(path.relative_to(ROOT))
        return 0
    if unknown := set(chosen.pages) - set(PAGES):
        parser.error(f"no page {', '.join(sorted(unknown))}: choose from {', '.join(PAGES)}")
    for page in chosen.pages or PAGES:
        make(page)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
