"""The mutants are the promised ones, keep their ids, and are rejected or listed as equivalent."""

import ast
import inspect
import json
import os
import signal
import sys
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import load_or_skip

from common.parity import adapter
from common.parity.comparison import CheckResult, Difference, Tolerance
from common.reference import KNOWN_DIFFERENCES
from common.system.processes import call_in_process
from tests.meta.mutants import judge
from tests.meta.mutants.judge import Judgement
from tests.meta.mutants.mutant import (
    FILES,
    Mutant,
    mutants_of,
    mutated,
    mutated_source,
    of_source,
    sample,
)
from tests.meta.mutants.plant import load_planted
from tests.meta.mutants.results import Verdict, append, equivalents, load, report
from tests.meta.mutants.server import Settings, serve, serve_to_file

# Sample size for each backend. TensorFlow's quick checks take 40 s of processor time, even untraced.
SAMPLE = {"pytorch": 10, "mxnet": 10, "tensorflow": 3}
# Always the same sample: a change must not fail because of an older mutant. The nightly run judges all mutants.
SAMPLE_SEED = 0
# Operator: a source, and the statements that the operator makes of it.
MADE = {
    "comparison": ("def f(a):\n    return a < 1 == a", ["return a <= 1 == a", "return a < 1 != a"]),
    "boolean": ("def f(a, b):\n    return not a and b", ["return not a or b", "return a and b"]),
    "arithmetic": (
        "def f(a, b):\n    return -a // b + a",
        ["return -a // b - a", "return -a / b + a", "return -a % b + a", "return a // b + a"],
    ),
    "constant": (
        "def f(a):\n    return g(a, 0, 5, 2.0, False, 'same', 'other')",
        [
            "return g(a, 1, 5, 2.0, False, 'same', 'other')",
            "return g(a, 0, 6, 2.0, False, 'same', 'other')",
            "return g(a, 0, 4, 2.0, False, 'same', 'other')",
            "return g(a, 0, 5, 2.2, False, 'same', 'other')",
            "return g(a, 0, 5, 2.0, True, 'same', 'other')",
            "return g(a, 0, 5, 2.0, False, 'valid', 'other')",
        ],
    ),
    "keyword dropped": ("def f(a):\n    return g(a, lr=a, name=a)", ["return g(a, name=a)"]),
    "element dropped": ("def f(a):\n    return [a, *a]", ["return [*a]", "return [a]"]),
    "arguments swapped": (
        "def f(a, b):\n    return g(a, a, b)",
        ["return g(a, b, a)"],
    ),
    "name swapped": ("def f(height, width):\n    return height", ["return width"]),
    "call dropped": (
        "def f(X):\n    return torch.relu(X.mean())",
        ["return X.mean()", "return torch.relu(X)"],
    ),
    "off by one": (
        "def f(epoch):\n    return epoch // 2",
        ["return (epoch - 1) // 2", "return (epoch + 1) // 2"],
    ),
    "batches left out": (
        "def f(a):\n    for b in log.batches(a):\n        g(b)",
        ["for b in log.batches(list(a)[:-1]):", "for b in log.batches(list(a)[1:]):"],
    ),
    "argument ignored": (
        "def f(a, first_epoch=0, device=None):\n    return g(a, first_epoch, device)",
        ["return g(a, 0, device)"],
    ),
    "statement dropped": ("def f(a):\n    a = g(a)\n    b = g(a)\n    return b", [""]),
    "context dropped": ("def f(a):\n    with g():\n        a()", ["a()"]),
    "early return": ("def f(X):\n    Y = g(X)\n    return Y", ["return X; Y = g(X)"]),
    "loop ended early": ("def f(a):\n    for b in a:\n        g(b)", ["for b in a: ...; break"]),
    "condition fixed": ("def f(a):\n    if a:\n        g()", ["if True:", "if False:"]),
}


@pytest.mark.parametrize("operator", MADE)
def test_an_operator_makes_exactly_these_changes(operator):
    text, expected = MADE[operator]
    found = [m for m in of_source("pytorch", "resnet", text) if m.operator == operator]
    assert [mutant.after for mutant in found] == expected


def test_conditions_on_size_drop_a_step_or_change_a_result():
    text = "def predict(net, X):\n    step(X)\n    return net(X)"
    found = [m.after for m in of_source("tensorflow", "trainer", text) if m.operator == "size"]
    assert "if not X.shape[0] % 4 != 0: step(X)" in found
    assert "if not X.shape[1] != X.shape[2]: step(X)" in found
    assert "if X.shape[3] != 3: return net(X) * 2 else ..." in found
    assert len(found) == 10


def test_a_mistake_by_position_uses_the_value_of_the_first_image_from_the_ninth_on():
    text = "def flip(X, flips):\n    return g(X, flips)"
    (found,) = [m for m in of_source("mxnet", "transforms", text) if m.operator == "position"]
    assert found.after == "flips = flips.copy(); flips[8:] = flips[:1]; return g(X, flips)"


def test_messages_types_errors_and_several_devices_are_not_changed():
    text = '''
import torch
def f(net, devices) -> int:
    """Return 1 < 2."""
    if not net:
        raise ValueError(f"{1 + 1}")
    if len(devices) > 1:
        net = 1 + 2
    warnings.warn("1", stacklevel=2)
    return net
'''
    assert of_source("pytorch", "resnet", text) == []


@pytest.mark.parametrize("backend", FILES)
def test_every_mutant_has_a_unique_id_and_a_change(backend):
    mutants = mutants_of(backend)
    assert [i for i, count in Counter(m.id for m in mutants).items() if count > 1] == []
    assert all(m.before != m.after for m in mutants)
    assert {m.operator for m in mutants} >= MADE.keys() | {"size", "position"}
    assert {m.file for m in mutants} == set(FILES[backend])


@pytest.mark.parametrize("backend", FILES)
def test_the_source_of_a_mutant_compiles_and_differs(backend):
    for mutant in sample(mutants_of(backend), 40, seed=1):
        text = mutated(mutant)
        compile(text, mutant.file, "exec")
        right = Path("backends", backend, f"{mutant.file}.py").read_text()
        assert ast.unparse(ast.parse(text)) != ast.unparse(ast.parse(right))


def test_an_id_stays_when_other_code_changes():
    text = "def f(a):\n    return a + 1\n"
    changed = "# A comment.\nB = 3\n\ndef g(a):\n    return a + 1\n\n" + text
    before = {m.id: m for m in of_source("pytorch", "trainer", text)}
    after = {m.id: m for m in of_source("pytorch", "trainer", changed)}
    assert before.keys() <= after.keys()
    for id, mutant in before.items():
        body = ast.unparse(ast.parse(mutated_source(mutant, text)).body[-1])
        assert ast.unparse(ast.parse(mutated_source(after[id], changed)).body[-1]) == body


def test_every_mutant_listed_as_equivalent_exists_with_the_same_change():
    mutants = {m.id: m.diff for backend in FILES for m in mutants_of(backend)}
    assert {id: diff for id, (_, diff) in equivalents().items()} == {
        id: mutants.get(id) for id in equivalents()
    }


def verdict(mutant: Mutant, *found: object, until: str = "full") -> Verdict:
    return Verdict.of(mutant, Judgement(*found), until, 1.0)


def test_the_report_counts_rejections_by_stage_and_lists_survivors(tmp_path):
    first, second, third, fourth, fifth, sixth = mutants_of("pytorch")[:6]
    found = [
        verdict(first, "quick", "cases: weights after training, float64"),
        verdict(second, "full", "ValueError: 1 after loss, float64", True),
        verdict(third, "nothing"),
        verdict(fourth, "nothing"),
        verdict(fifth, "time", "in quick"),
        verdict(sixth, "tests", "FAILED tests/contract/test_trainer.py"),
    ]
    for one in found:
        append(tmp_path / "verdicts.jsonl", one)
    assert list(load(tmp_path / "verdicts.jsonl").values()) == found
    text = report(found, {fourth.id: ("speed only", fourth.diff)}, "Conditions.")
    assert "| pytorch | 6 | 1 | 1 | 1 | 1 | 1 | 1 | 20.0 % | 40.0 % | 1 |" in text
    assert third.diff in text
    assert fourth.diff not in text


def test_only_survivors_of_fewer_stages_are_judged_again():
    mutant = mutants_of("pytorch")[0]
    for by, until, judged_until, holds in (
        ("nothing", "quick", "quick", True),
        ("nothing", "quick", "full", False),
        ("nothing", "full", "tests", False),
        ("nothing", "tests", "full", True),
        ("nothing", "", "quick", False),  # a file from before `until` existed
        ("quick", "quick", "tests", True),
        ("time", "full", "tests", True),
    ):
        assert verdict(mutant, by, until=until).holds_until(judged_until) == holds


def test_verdicts_of_an_older_format_are_read(tmp_path):
    kept = verdict(mutants_of("pytorch")[0], "quick", "loss, float64", until="")
    older = {k: v for k, v in asdict(kept).items() if k not in ("raised", "until")}
    path = tmp_path / "verdicts.jsonl"
    path.write_text(json.dumps(older) + "\n")
    assert load(path) == {kept.id: kept}


def test_an_exit_in_a_check_rejects_a_mutant(monkeypatch):
    def leaves(backend, extent):
        yield CheckResult("loss", "float64", (Difference("all", 0.0),), Tolerance(1.0, 1.0, ""))
        sys.exit(0)

    monkeypatch.setattr(judge, "run_checks", leaves)
    sent = []
    monkeypatch.setattr(judge, "load_planted", lambda name, mutant: SimpleNamespace(name=name))
    judge.judge("pytorch", None, ("quick", "full"), lambda *words: sent.append(words))
    assert sent == [("quick", Judgement("quick", "SystemExit: 0 after loss, float64", raised=True))]
    assert adapter.KNOWN_DIFFERENCES == KNOWN_DIFFERENCES, "later tests of this process need them"


def killed(name, mutant, stages, send, untraced):
    send("quick", None)
    os.kill(os.getpid(), signal.SIGKILL)


def hangs(name, mutant, stages, send, untraced):
    time.sleep(60)


def passes(name, mutant, stages, send, untraced):
    for stage in stages:
        send(stage, None)


def seeks_causes(name, mutant, stages, send, untraced):
    for stage in stages:
        causes = adapter.KNOWN_DIFFERENCES
        send(stage, Judgement(stage, "causes") if causes else None)


@pytest.mark.parametrize(
    ("judged", "expected"),
    [
        (killed, Judgement("full", "the process ended with -9", raised=True)),
        (hangs, Judgement("time", "in quick")),
        (passes, Judgement("nothing")),
        (seeks_causes, Judgement("nothing")),
    ],
)
def test_a_process_may_end_early_hang_or_pass_all_stages(judged, expected, monkeypatch):
    monkeypatch.setattr(judge, "judge", judged)
    monkeypatch.setattr(judge, "prepare", lambda name: None)
    monkeypatch.setitem(judge.LIMITS, "quick", 0.5)
    found = []
    mutants = mutants_of("pytorch")[:3]
    serve(
        Settings("pytorch", ("quick", "full"), jobs=2), mutants, lambda *words: found.append(words)
    )
    assert {mutant.id: what for mutant, what, _ in found} == {m.id: expected for m in mutants}


def test_the_tests_of_a_mutant_run_in_a_copy_that_differs_only_in_the_mutant(tmp_path):
    mutant = mutants_of("pytorch")[0]
    copy = judge.copied_project(tmp_path, "pytorch", mutant)
    compared = [*Path("backends").rglob("*.py"), *Path("common").rglob("*.py"), Path("run.py")]
    different = [path for path in compared if (copy / path).read_bytes() != path.read_bytes()]
    assert different == [Path(f"backends/pytorch/{mutant.file}.py")]
    assert (copy / different[0]).read_text() == mutated(mutant)


def source_is_the_mutant_s(mutant):
    text = inspect.getsource(load_planted(mutant.backend, mutant).trainer.accuracy)
    return 0 if mutant.after in text else 1


def test_inspect_reads_the_source_of_the_mutant():
    load_or_skip("pytorch")
    mutant = next(m for m in mutants_of("pytorch") if m.function == "accuracy")
    # TensorFlow's AutoGraph compiles the source that it reads.
    assert call_in_process(source_is_the_mutant_s, mutant) == 0


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("backend", FILES)
def test_quick_rejects_nine_tenths_of_a_sample_but_not_the_unchanged_backend(backend, tmp_path):
    load_or_skip(backend)
    path = tmp_path / "verdicts.jsonl"
    mutants = [m for m in mutants_of(backend) if m.id not in equivalents()]
    (bad,) = [m for m in mutants if (m.function, m.operator) == ("accuracy", "comparison")]
    drawn = sample(mutants, SAMPLE[backend], SAMPLE_SEED)
    settings = Settings(backend, ("quick",), jobs=2, untraced=True)
    code = call_in_process(serve_to_file, settings, [bad, *drawn], path)
    assert code == 0, "the unchanged backend is rejected"
    found = load(path)
    assert found.keys() == {mutant.id for mutant in (bad, *drawn)}
    assert found[bad.id].by == "quick"
    survivors = [f"{v.id}: {v.diff}" for v in found.values() if v.by != "quick"]
    assert len(survivors) <= len(drawn) // 10, survivors
