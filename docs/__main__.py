"""`python -m docs`: build the site, write the notebooks, and remake the pages' pictures and numbers."""

import argparse
import subprocess
import sys
from pathlib import Path

from backends import FRAMEWORKS
from common.system.processes import exit_code
from docs.differences import measure
from docs.figures import CHAPTERS, PAGES, ROOT, make, make_cells

SITE, NOTEBOOKS = ROOT / "build" / "site", ROOT / "build" / "notebooks"


def build(source: Path, output: Path) -> int:
    """Build every page of a site and return the exit code.

    Warnings, such as a broken link or a renamed function, are errors. Sphinx does not read a page again after a
    warning, so a second incremental build would succeed; this one is always complete.
    """
    sphinx = [sys.executable, "-m", "sphinx", "-E", "-W", "--keep-going", "-b", "html"]
    return subprocess.run([*sphinx, source, output], check=False).returncode


def main(arguments: list[str]) -> int:
    """Run one command and return the exit code: 0 if it worked, 2 for an error of the user, 130 after Ctrl-C."""
    return exit_code(_run, arguments)


def _run(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m docs", description=__doc__)
    commands = parser.add_subparsers(dest="what", required=True)
    html = commands.add_parser("html", help="build the site")
    html.add_argument(
        "--output",
        metavar="FOLDER",
        type=Path,
        default=SITE,
        help="where to write it; default: build/site",
    )
    commands.add_parser(
        "notebooks", help="write a notebook of each chapter and framework into build/notebooks"
    )
    figures = commands.add_parser(
        "figures",
        help="remake the pictures and numbers of the pages, with the commands that the pages name",
    )
    figures.add_argument(
        "pages",
        nargs="*",
        help=f"from {', '.join(PAGES)}; default: all, which takes about two hours",
    )
    figures.add_argument(
        "--cells",
        nargs="*",
        choices=FRAMEWORKS,
        metavar="BACKEND",
        help="only the outputs of the chapters' cells, in these backends (default: all); some minutes each",
    )
    differences = commands.add_parser(
        "differences",
        help="measure the differences between the frameworks and write docs/differences.json, in some minutes; "
        "with an option, measure a part and print it",
    )
    differences.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME",
        help="only this difference; may be repeated",
    )
    differences.add_argument(
        "--backend",
        action="append",
        default=[],
        metavar="NAME",
        choices=FRAMEWORKS,
        help="only this framework; may be repeated",
    )
    prose = commands.add_parser(
        "prose", help="list sentences that are too long, and words that have a plainer one"
    )
    prose.add_argument(
        "files", nargs="*", type=Path, metavar="FILE", help="files to check; default: all"
    )
    chosen = parser.parse_args(arguments)
    if chosen.what == "differences":
        return measure.run(chosen.only, chosen.backend)
    if chosen.what == "prose":
        from docs.prose import report

        print(*report(chosen.files), sep="\n")
        return 0
    if chosen.what == "html":
        from docs.prose import report

        print(f"English: {report()[1]} (python -m docs prose)")
        return build(ROOT / "docs", chosen.output)
    if chosen.what == "notebooks":
        from docs.notebooks import write_notebooks  # not at the top: figures need no Sphinx

        for chapter in CHAPTERS:
            for path in write_notebooks(ROOT / "docs" / f"{chapter}.md", NOTEBOOKS):
                print(path.relative_to(ROOT))
        return 0
    pages = PAGES if chosen.cells is None else tuple(CHAPTERS)
    if unknown := set(chosen.pages) - set(pages):
        parser.error(f"no page {', '.join(sorted(unknown))}: choose from {', '.join(pages)}")
    for page in chosen.pages or pages:
        if chosen.cells is None:
            make(page)
        else:
            make_cells(page, chosen.cells or FRAMEWORKS)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
