"""A framework that cannot run on this Python, NumPy or system: what is said, and what `--backend all` does."""

import re
import sys
import tomllib
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import load_or_skip, python
from packaging.requirements import Requirement

import backends
import run
from common import cli
from common.commands import side_by_side
from common.errors import UserError, UserNotice

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LINUX = ("linux", "x86_64")
NEEDS_PYTHON = (
    "backend mxnet needs Python 3.12 or older, and this is Python 3.13: choose another backend, "
    "or start with uv run --python 3.12 --extra mxnet"
)
NEEDS_NUMPY = "backend mxnet needs NumPy 1, and NumPy 2.5.5 is installed: pip install 'numpy<2'"

Here = Callable[..., None]


@pytest.fixture
def here(monkeypatch) -> Here:
    """Return a function that changes what this process sees: the packages, the system, Python and NumPy."""

    def change(
        absent: Sequence[str] = (),
        place: tuple[str, str] = LINUX,
        python: tuple[int, int] = (3, 11),
        numpy: str = "1.26.4",
    ) -> None:
        monkeypatch.setattr(backends, "find_spec", lambda package: package not in absent)
        monkeypatch.setattr(backends, "version", lambda package: numpy)
        monkeypatch.setattr(backends, "platform", SimpleNamespace(machine=lambda: place[1]))
        fake = SimpleNamespace(platform=place[0], version_info=(*python, 0), modules=sys.modules)
        monkeypatch.setattr(backends, "sys", fake)

    return change


@pytest.fixture
def taken(monkeypatch) -> list[Any]:
    """The backends that each run of several would take, and its ``--backend``."""
    runs: list[Any] = []

    def note(command: str, config: Any, names: Sequence[str], *_: Any) -> int:
        runs.append((config.backend, names))
        return 0

    monkeypatch.setattr(side_by_side, "run", note)
    return runs


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"absent": ["mxnet"], "python": (3, 13)}, NEEDS_PYTHON),
        ({"numpy": "2.5.5"}, NEEDS_NUMPY),
        (
            {"absent": ["mxnet"], "place": ("darwin", "arm64")},
            "backend mxnet: there are no wheels of mxnet for darwin arm64, only for linux x86_64, "
            "linux aarch64, darwin x86_64: choose another backend",
        ),
    ],
    ids=["Python", "NumPy", "system"],
)
def test_a_backend_that_cannot_run_here_is_refused_in_one_line(here, taken, capsys, change, line):
    here(**change)
    for chosen in ("mxnet", "pytorch,mxnet"):
        assert run.main(["--backend", chosen]) == 2
        assert capsys.readouterr().err == f"error: {line}\n"
    with pytest.warns(UserNotice) as notices:
        assert run.main(["--backend", "all"]) == 0
    assert [str(notice.message) for notice in notices] == [f"left out: {line}"]
    assert taken == [("pytorch,tensorflow", ["pytorch", "tensorflow"])]


def test_a_backend_that_only_has_to_be_installed_is_not_left_out(here, taken, capsys):
    here(absent=["mxnet"])
    assert run.main(["--backend", "all"]) == 2
    assert "backend mxnet needs mxnet: install the extra 'all'" in capsys.readouterr().err
    assert taken == []


def test_all_backends_are_one_where_only_one_can_run(here):
    here(absent=["mxnet", "tensorflow"], python=(3, 14))
    with pytest.warns(UserNotice, match="backend .* needs Python 3.1[23] or older"):
        assert backends.without_obstacle(["pytorch", "mxnet", "tensorflow"]) == ["pytorch"]
    with pytest.raises(UserError, match=r"mxnet needs Python.*; backend tensorflow needs Python"):
        backends.without_obstacle(["mxnet", "tensorflow"])


def test_all_backends_are_all_where_each_can_run(here, taken):
    here()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run.main(["--backend", "all"]) == 0
    assert taken == [("all", list(backends.FRAMEWORKS))]


def test_a_framework_built_for_a_newer_python_is_taken(here):
    """Who has built NumPy 1 and MXNet for Python 3.13 may use them."""
    here(python=(3, 13))
    assert backends.installed("mxnet")


def test_the_import_of_the_mxnet_tab_refuses_numpy_2_in_the_same_words():
    load_or_skip("mxnet")
    script = (
        "import backends; backends.version = lambda name: '2.5.5'\n"
        "try:\n    import backends.mxnet\n"
        "except backends.UserError as error:\n    print(error)"
    )
    assert python(script).stdout == f"{NEEDS_NUMPY}\n"


@pytest.mark.parametrize("minor", range(11, 16))
@pytest.mark.parametrize(
    "place",
    [LINUX, ("linux", "aarch64"), ("darwin", "x86_64"), ("darwin", "arm64"), ("win32", "AMD64")],
)
@pytest.mark.parametrize("name", backends.FRAMEWORKS)
def test_an_extra_brings_a_framework_exactly_where_it_can_run(here, name, place, minor):
    packages = backends.FRAMEWORKS[name].packages
    here(absent=packages, place=place, python=(3, minor))
    where = {
        "sys_platform": place[0],
        "platform_machine": place[1],
        "python_version": f"3.{minor}",
        "python_full_version": f"3.{minor}.0",
    }
    requirements = map(Requirement, PROJECT["optional-dependencies"][name])
    brought = {it.name for it in requirements if it.marker is None or it.marker.evaluate(where)}
    assert (set(packages) <= brought) == (not backends.obstacle(name))
    if backends.obstacle(name):
        assert not set(packages) & brought


def test_ci_covers_the_oldest_python_and_the_newest_of_each_framework(here):
    text = (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8")
    jobs = re.findall(r'python: "3\.(\d+)", backends: "([\w,]+)"', text)
    pythons = [int(minor) for minor, _ in jobs]
    assert PROJECT["requires-python"] == f">=3.{pythons[0]}"
    limits = [framework.newest_python for framework in backends.FRAMEWORKS.values()]
    assert {limit[1] for limit in limits if limit} <= set(pythons)
    for minor, chosen in jobs:
        here(absent=["torch", "mxnet", "tensorflow"], python=(3, int(minor)))
        possible = [name for name in backends.FRAMEWORKS if not backends.obstacle(name)]
        assert cli.backend_names(chosen, list(backends.FRAMEWORKS)) == possible
