"""The pages Command line and Python API show everything in the parser and in the contract."""

import json
import re
import runpy
import shlex
from pathlib import Path

import pytest

from backends import FRAMEWORKS
from common import cli, parity
from common.interface import Backend
from docs import api, command_line

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


def named(page: str, directive: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{{{directive}}} (.*)$", text, re.M)


def test_every_command_is_on_the_page_in_the_order_of_the_help():
    assert named("command-line.md", "command") == list(cli.COMMANDS)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_a_command_is_shown_with_its_options_and_a_kept_example(name):
    shown = command_line.shown(name)
    parser = cli.command_parser(name, FRAMEWORKS)
    rows = re.findall(r"^\| `(\S+?)[ `]", shown, re.M)
    assert rows == [
        action.option_strings[0] if action.option_strings else action.metavar
        for group in parser._action_groups
        for action in group._group_actions
        if action.dest != "help"
    ]
    assert f"```sh\npython run.py {command_line.EXAMPLES[name]}\n```" in shown
    assert json.loads(command_line.KEPT.read_text(encoding="utf-8"))["printed"][name] in shown


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_the_example_is_one_of_its_command(name):
    found, _ = cli.parse(shlex.split(command_line.EXAMPLES[name]), FRAMEWORKS)
    assert found == name


def test_a_command_that_is_not_there_is_an_error():
    with pytest.raises(LookupError, match="there is no command 'gone': choose from train"):
        command_line.shown("gone")


def test_a_long_output_keeps_its_beginning_and_its_end():
    lines = [f"{i}" for i in range(100)]
    shortened = command_line.shortened("\n".join(lines) + "  \n").splitlines()
    assert shortened[: command_line.HEAD] == lines[: command_line.HEAD]
    assert shortened[command_line.HEAD] == "..."
    assert shortened[-1] == "99"
    assert command_line.shortened("one \ntwo\n") == "one\ntwo"


def parts() -> list[str]:
    return [name for name in Backend.__dataclass_fields__ if name != "framework"]


def test_every_part_of_a_backend_is_on_the_page():
    assert named("python-api.md", "contract") == parts()


@pytest.mark.parametrize("part", parts())
def test_a_part_is_shown_with_all_its_functions_and_their_first_lines(part):
    shown = api.contract(ROOT, part)
    source = (ROOT / "backends" / "pytorch" / f"{part}.py").read_text(encoding="utf-8")
    functions = re.findall(rf"{{py:function}} backend\.{part}\.(\w+)\(.*\n\n(.*)\n", shown)
    assert functions
    for name, first in functions:
        assert re.search(rf'def {name}\((?s:.)*?"""{re.escape(first)}', source), name


def test_every_public_name_of_parity_is_on_the_page():
    assert "common.parity" in named("python-api.md", "api")
    shown = api.public_names(ROOT, "common.parity", [])
    for name in parity.__all__:
        assert re.search(rf"{{py:(class|function)}} common\.parity\.{name}\(", shown)
    assert "{py:method} check() -> None" in shown
    assert "{py:property} first" in shown


def test_names_that_are_not_there_are_errors():
    with pytest.raises(LookupError, match="a backend has no gone: choose from devices"):
        api.contract(ROOT, "gone")
    with pytest.raises(LookupError, match="backends defines no gone, lost"):
        api.public_names(ROOT, "backends", ["load", "gone", "lost"])


def test_without_an_address_no_page_links_to_a_repository(monkeypatch):
    address = "https://github.com/example/three-tabs"
    monkeypatch.setenv("SITE_REPOSITORY", address)
    conf = runpy.run_path(str(DOCS / "conf.py"))
    known = conf["about"].get("urls", {}).get("Repository", "")
    assert conf["html_theme_options"]["source_repository"] == (known or address)
    monkeypatch.delenv("SITE_REPOSITORY")
    conf = runpy.run_path(str(DOCS / "conf.py"))
    assert conf["html_theme_options"]["source_repository"] == known
    assert conf["html_theme_options"]["top_of_page_buttons"] == (["edit"] if known else [])
