"""The README is short, its links work, and it shows what the pages and the program say."""

import json
import re
import shlex
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from backends import FRAMEWORKS
from common import cli
from common.commands import resume
from common.config import KAGGLE_PRESETS, PRESETS, plain

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
# The README's words for a comparison with the reference: the check's name in the published results.
CHECKS = {
    "logits, training mode, float64": "logits, training, float64",
    "gradients, float64": "gradients, float64",
    "weights after a step of SGD, float64": "locked SGD: weights, float64",
    "losses, four epochs of `train_ch13`, float64": "train_ch13, SGD: losses, float64",
    "losses, five epochs of `kaggle.train`, float64": "kaggle.train, with validation: losses, float64",
    "logits, evaluation mode, float32": "logits, evaluation, float32",
    "augmented images, float32": "transforms, float32",
}


def blocks(text: str, language: str) -> list[str]:
    """Return the fenced code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def test_the_readme_has_at_most_150_lines():
    assert len(README.splitlines()) <= 150


def test_every_file_that_the_readme_links_to_exists():
    links = re.findall(r"\]\(([^)#]+)", README) + re.findall(r'src="(.*?)"', README)
    local = [link for link in links if "://" not in link]
    assert len(local) > 15
    assert [link for link in local if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("page", ["README.md", "docs/get-started.md"])
def test_the_clone_line_has_the_address_in_pyproject_or_says_that_none_is_known(page):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    address = project.get("urls", {}).get("Repository", "<address of this repository>")
    text = (ROOT / page).read_text(encoding="utf-8")
    assert f"git clone {address} three-tabs\n" in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_program_understands_every_command_that_a_page_shows(page, monkeypatch):
    text = page.read_text(encoding="utf-8")
    shown = "\n".join([*blocks(text, "sh"), *re.findall(r"\| `(python run\.py .*?)`", text)])
    for command in re.findall(r"python run\.py(.*)", shown.replace("\\\n", "")):
        arguments = shlex.split(command.replace("NAME", "numpy"), comments=True)
        kaggle = "kaggle" in arguments
        preset = KAGGLE_PRESETS["quick"] if kaggle else PRESETS["quick"]
        of_run = {
            "command": "kaggle" if kaggle else "train",
            "config": plain(replace(preset, num_epochs=1)),
        }
        monkeypatch.setattr(resume, "read_config", lambda folder, found=of_run: found)
        if arguments and "--help" not in arguments:
            frameworks = FRAMEWORKS | {"numpy": FRAMEWORKS["pytorch"]}
            name, config = cli.parse(arguments, frameworks)
            chosen = getattr(config, "backend", "")
            assert not chosen or cli.backend_names(chosen, list(frameworks)), name


def test_the_modules_that_the_readme_runs_exist():
    modules = re.findall(r"python -m ([\w.]+)", README)
    assert modules
    for module in modules:
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module


def test_the_excerpt_of_the_output_is_of_the_run_that_get_started_shows():
    get_started = (ROOT / "docs" / "get-started.md").read_text(encoding="utf-8")
    excerpt, *_ = blocks(README, "text")
    lines = [line for line in excerpt.splitlines() if line != "..."]
    assert len(lines) > 3
    assert set(lines) <= set(get_started.splitlines())
    assert f"epochs, {PRESETS['quick'].adam}" in excerpt


@pytest.mark.parametrize("comparison", CHECKS)
def test_the_numbers_of_the_proof_are_the_published_ones(comparison):
    kept = json.loads((ROOT / "docs/results/parity-checks.json").read_text(encoding="utf-8"))
    published = {check: differences for check, _, *differences in kept["rows"]}
    row, *_ = re.findall(rf"^\| {re.escape(comparison)} \|.*$", README, re.M)
    _, _, *numbers = [cell.strip() for cell in row.strip("|").split("|")]
    assert numbers == published[CHECKS[comparison]]


def test_every_number_of_the_proof_is_compared_with_the_published_ones():
    proof = README.partition("## Proof")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.*?) \| NumPy reference \|", proof, re.M)
    assert rows == list(CHECKS)
