"""The files that GitHub reads beside the code: workflows, forms for issues, the citation."""

import re
import tomllib
from pathlib import Path

import pytest
from conftest import needs

ROOT = Path(__file__).resolve().parents[2]
FORMS = "wrong-number", "port-that-disagrees", "bug"

pytestmark = needs("yaml")


def read(path: str):
    import yaml

    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", FORMS)
def test_a_form_for_issues_has_what_github_asks_of_it(name):
    form = read(f".github/ISSUE_TEMPLATE/{name}.yml")
    assert form["name"]
    assert form["description"]
    kinds = {"input", "textarea", "dropdown", "checkboxes", "markdown"}
    assert {element["type"] for element in form["body"]} <= kinds
    ids = [element["id"] for element in form["body"]]
    assert len(set(ids)) == len(ids)
    for element in form["body"]:
        assert element["attributes"]["label"]
    assert any(element.get("validations", {}).get("required") for element in form["body"])


def test_the_site_is_built_and_deployed_on_main_with_its_address():
    text = (ROOT / ".github/workflows/pages.yml").read_text(encoding="utf-8")
    jobs = read(".github/workflows/pages.yml")["jobs"]
    used = [
        step.get("uses", "").partition("@")[0] for job in jobs.values() for step in job["steps"]
    ]
    actions = ["upload-pages-artifact", "deploy-pages"]
    assert [name for name in used if name.endswith(tuple(actions))] == [
        f"actions/{action}" for action in actions
    ]
    assert re.search(r"push:\n    branches: \[main\]", text)
    assert jobs["deploy"]["needs"] == "build"
    assert jobs["deploy"]["permissions"] == {"pages": "write", "id-token": "write"}
    (build,) = (
        step for step in jobs["build"]["steps"] if "python -m docs html" in step.get("run", "")
    )
    assert "SITE_REPOSITORY" in build["env"]
    (uploaded,) = (
        step["with"]["path"] for step in jobs["build"]["steps"] if "path" in step.get("with", {})
    )
    assert f"--output {uploaded}" in build["run"]


def test_the_citation_has_the_version_of_the_project_and_the_book():
    citation = read("CITATION.cff")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert str(citation["version"]) == project["version"]
    assert citation["license"] == project["license"]
    (book,) = citation["references"]
    assert book["title"] == "Dive into Deep Learning"
    assert [author["family-names"] for author in book["authors"]] == [
        "Zhang",
        "Lipton",
        "Li",
        "Smola",
    ]


def test_the_release_checklist_names_each_place_of_the_version():
    text = (ROOT / "RELEASING.md").read_text(encoding="utf-8")
    for name in ("pyproject.toml", "CITATION.cff", "CHANGELOG.md", "uv lock", "git tag"):
        assert name in text
