"""The address of the project's repository."""

import os
import tomllib
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"


def repository() -> str:
    """Return the address in `[project.urls]` of pyproject.toml, else that of SITE_REPOSITORY, else "".

    The Pages workflow sets SITE_REPOSITORY.
    """
    urls = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"].get("urls", {})
    return str(urls.get("Repository") or os.environ.get("SITE_REPOSITORY", ""))
