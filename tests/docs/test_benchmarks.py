"""The benchmarks: turns, ratios, goals and the page's tables. No test depends on a measured speed."""

import json
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from numpy_backend import FRAMEWORK

import backends
from benchmarks import __main__ as command
from benchmarks import measures
from benchmarks.goals import RECIPES, goals, over_book, over_the_book_s_loader
from benchmarks.picture import draw_growth, draw_training
from benchmarks.processes import Worker, WorkerError
from benchmarks.report import FILE, TABLES, figures
from benchmarks.results import Spread, added_to, ratio, save
from common.errors import UserError

ROOT = Path(__file__).parents[2]


def test_a_spread_is_the_median_with_the_lowest_and_the_highest():
    assert Spread.of([3.0, 1.0, 2.0, 10.0, 2.5]) == Spread(2.5, 1.0, 10.0)


def test_a_ratio_is_of_the_same_repetition_not_of_the_medians():
    machine_slows_down = ratio([100.0, 50.0, 25.0], [50.0, 25.0, 12.5])
    assert machine_slows_down == Spread(2.0, 2.0, 2.0)
    with pytest.raises(ValueError, match="zip"):
        ratio([1.0, 2.0], [1.0])


def test_candidates_take_turns_and_each_comes_first_once():
    order = []
    candidates = {name: lambda name=name: order.append(name) or 1.0 for name in "abc"}
    rates = measures.in_turns(3, candidates, print)
    assert order == list("abcbcacab")
    assert rates == {name: [1.0] * 3 for name in "abc"}


def test_a_candidate_that_cannot_be_measured_is_left_out_and_said():
    def broken() -> float:
        raise WorkerError("no bfloat16 here")

    said = []
    assert measures.in_turns(2, {"a": lambda: 1.0, "b": broken}, said.append) == {"a": [1.0, 1.0]}
    assert said == ["left out: b: no bfloat16 here"]


def test_a_process_says_what_went_wrong_and_lives_on():
    with Worker("numpy", plain=True) as worker:
        with pytest.raises(WorkerError, match=r"numpy, plain: loader .* ValueError"):
            worker.ask("loader", pipeline="none", recipe="flip", num_images=4, batch_size=2)
        answer = worker.ask("loader", pipeline="NumPy", recipe="flip", num_images=4, batch_size=2)
        assert answer["images"] == 4
        assert answer["seconds"] > 0


def test_a_process_that_ends_is_an_error_of_the_one_who_asks():
    with (
        Worker("numpy", {"PYTHONPATH": "/nowhere", "PYTHONHOME": "/nowhere"}, plain=True) as worker,
    ):
        for _ in range(2):
            with pytest.raises(WorkerError, match="ended the process"):
                worker.ask("loader")


def results(**changes: float) -> dict:
    """Return results of one backend that meet every goal, with changes."""
    v = {"train": 0.98, "step": 10.0, "book": 0.1, "loader": 80.0, "start": 1.2, "slope": 1.0}
    v |= {"twice": 2.0, "small": 0.95, "saved": 0.99} | changes
    rates = {f"book {b} fp32": [v["book"] * v["step"]] for b in ["pytorch"]}
    for precision in ("fp32", "bf16"):
        rates[f"product pytorch {precision}"] = [33.3]
        rates[f"step pytorch {precision}"] = [v["step"]]
        rates[f"train pytorch {precision}"] = [v["step"] * v["train"]]
    loaders = {}
    for recipe in measures.RECIPES:
        loaders[f"{recipe} pytorch batched"] = [v["loader"]]
        loaders |= {f"{recipe} pytorch {peer}": [10.0] for peer in ("book", "v2")}
        loaders[f"{recipe} pytorch v2 batch"] = [1e6]
    split = {"import": 1.0, "data": 0.1, "pictures": 0.1, "first step": 0.1, "rest": 0.1}
    seconds = {"run.py": [v["start"]], "import": [1.0], "least": [1.0]}
    return {
        "machine": {
            "processor": "toy",
            "cores": "2",
            "memory": "1 GiB",
            "system": "toy",
            "instructions": [],
        },
        "backends": ["pytorch"],
        "extent": asdict(measures.QUICK) | {"batch_size": 128},
        "training": {
            "load_before": 0.0,
            "rates": rates,
            "gflop_per_image": 3.33,
            "conditions": {"pytorch fp32": {"threads": "2", "versions": {"torch": "2"}}},
        },
        "options": {"rates": {"pytorch: as it is": [1.0]}, "load_before": 0.0},
        "loaders": {"rates": loaders, "load_before": 0.0},
        "start": {
            "load_before": 0.0,
            "seconds": {f"pytorch {name}": value for name, value in seconds.items()},
            "splits": {"pytorch": [split | {"memory": 100.0}]},
        },
        "checkpoints": {
            "load_before": 0.0,
            "rates": {"pytorch without": [1.0], "pytorch with": [v["saved"]]},
            "memory": {"pytorch": {"without": 1.0, "with": 1.0}},
        },
        "growth": {
            "load_before": 0.0,
            "images": {"pytorch": {"256": [1.0], "512": [v["twice"]]}},
            "batch_size": {
                "pytorch": {
                    "64": {"this": [v["small"]], "usual": [1.0], "memory": 1.0},
                    "128": {"this": [1.0], "usual": [1.0], "memory": 1.0},
                }
            },
            "workers": {"pytorch": {"0": [1.0], "1": [1.0]}},
            "memory": {
                "pytorch": {
                    "100": {"peak": 100.0, "data": 10.0},
                    "200": {"peak": 100.0 + 10 * v["slope"], "data": 20.0},
                }
            },
        },
    }


def unmet(found: dict) -> set[str]:
    """Return the goals that were not met."""
    return {what for what, _, _, met in goals(found) if not met}


def test_results_at_their_goals_meet_all_of_them():
    assert unmet(results()) == set()


@pytest.mark.parametrize(
    ("change", "missed"),
    [
        ({"train": 0.96}, {"train over step, fp32", "train over step, bf16"}),
        ({"step": 5.0}, {"step over product, fp32"}),
        ({"step": 2.0}, {"step over product, fp32", "step over product, bf16"}),
        ({"book": 0.5}, {"train over the book, pytorch bf16"}),
        (
            {"loader": 40.0},
            {
                "batched over the book's loader, flip",
                "batched over the book's loader, Kaggle recipe",
            },
        ),
        ({"start": 1.4}, {"start over a bare import"}),
        ({"slope": 3.0}, {"memory for an image over its uint8 data"}),
        ({"saved": 0.97}, {"epochs with checkpoints over epochs without"}),
        ({"twice": 2.1}, {"time for twice the images"}),
        ({"small": 0.85}, {"batches of 64 and more over the best"}),
    ],
)
def test_a_goal_that_was_missed_is_not_said_to_be_met(change, missed, tmp_path):
    found = results(**change)
    assert unmet(found) == missed
    file = tmp_path / "results.json"
    file.write_text(json.dumps(found))
    rows = [row.split(" | ") for row in figures("goals", file).splitlines()]
    assert {row[0].removeprefix("| ") for row in rows if row[-1] == "**no** |"} == missed


def test_a_loader_that_was_left_out_meets_no_goal():
    without = results()
    del without["loaders"]["rates"]["kaggle pytorch book"]
    assert unmet(without) == {"batched over the book's loader, Kaggle recipe"}


def test_a_backend_without_entries_is_left_out_or_refused_when_it_is_named(
    monkeypatch, tmp_path, capsys
):
    monkeypatch.setitem(backends.FRAMEWORKS, "numpy", FRAMEWORK)
    output = ["--output", str(tmp_path / "results.json")]
    monkeypatch.setattr(command, "MEASURES", {"start": lambda names, *_: {"names": names}})
    assert command.main([*output]) == 0
    assert "numpy is left out: no entry in BARE, LEAST" in capsys.readouterr().out
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["start"]["names"] == found["backends"]
    assert "numpy" not in found["backends"]
    assert command.main([*output, "--backend", "numpy"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: backend numpy cannot be measured: BARE, LEAST in")
    assert said.count("\n") == 1


def test_a_backend_without_a_goal_over_the_book_has_the_other_goals():
    found = json.loads(json.dumps(results()).replace("pytorch", "fourth"))
    measured = {what for what, *_ in goals(found)}
    assert "train over step, fp32" in measured
    assert not any("over the book, fourth" in what for what in measured)


def test_a_measure_taken_anew_joins_the_others_of_its_file(tmp_path):
    file, header = tmp_path / "results.json", {"machine": {"cores": "2"}, "backends": ["pytorch"]}
    assert added_to(file, header) == header
    save(file, header | {"training": {"rates": {}}})
    assert added_to(file, header)["training"] == {"rates": {}}
    with pytest.raises(UserError, match=r"the machine of the results in .* and of this run differ"):
        added_to(file, header | {"machine": {"cores": "4"}})


def test_the_page_shows_every_table_and_the_tables_what_was_measured():
    page = FILE.with_name("performance.md").read_text(encoding="utf-8")
    assert re.findall(r"^```\{figures\} (.+)$", page, re.M) == list(TABLES)
    published = json.loads(FILE.read_text(encoding="utf-8"))
    for backend in published["backends"]:
        step = Spread.of(published["training"]["rates"][f"step {backend} fp32"])
        cell = f"| {step.median:.1f} ({step.lowest:.1f} to {step.highest:.1f}) |"
        assert cell in figures("training")
        for name in set(TABLES):
            assert f"{backend}" in figures(name)
    with pytest.raises(LookupError):
        figures("speed")


def test_the_result_at_the_top_of_the_page_is_what_was_measured():
    published = json.loads(FILE.read_text(encoding="utf-8"))
    rates, names = published["training"]["rates"], published["backends"]
    text = " ".join(FILE.with_name("performance.md").read_text(encoding="utf-8").split())

    def extent(values):
        medians = [spread.median for spread in values if spread]
        return f"{min(medians):.1f} to {max(medians):.1f} times"

    slowest = {what: value for what, _, value, _ in goals(published)}
    fp32, bf16 = (f"{float(slowest[f'slowest over fastest, {p}']):.0%}" for p in ("fp32", "bf16"))
    assert f"framework runs at {fp32} of the speed of the fastest; in bf16 at {bf16}." in text
    faster = [ratio(rates[f"train {b} bf16"], rates[f"train {b} fp32"]) for b in names]
    assert f"bf16 is {extent(faster)} as fast as fp32" in text
    over = [extent(over_book(rates, b, p) for b in names) for p in ("fp32", "bf16")]
    assert f"`train_ch13` is {over[0]} as fast in fp32 and {over[1]} in bf16" in text
    loaders = published["loaders"]["rates"]
    found = [over_the_book_s_loader(loaders, recipe, b) for recipe in RECIPES for b in names]
    assert f"the batched loader is {extent(found)} as fast" in text


def test_the_page_says_what_this_machine_did_not_measure():
    """The page's section Not measured is written by hand."""
    published = json.loads(FILE.read_text(encoding="utf-8"))
    assert "amx_bf16" not in published["machine"]["instructions"]
    devices = [c["device"] for c in published["training"]["conditions"].values()]
    assert all("cuda" not in device and "gpu" not in device for device in devices)


@pytest.mark.parametrize("draw", [draw_growth, draw_training])
def test_the_pictures_are_drawn_from_the_results(tmp_path, draw):
    draw(tmp_path / "picture.png", json.loads(FILE.read_text(encoding="utf-8")))
    assert (tmp_path / "picture.png").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_measure_runs_on_every_backend_and_fills_the_page(backend, tmp_path):
    """Options and growth on one of them: they start a process for each setting and size, and use the same tasks."""
    file = tmp_path / "results.json"
    command = ["-m", "benchmarks", "--quick", "--backend", backend.name, "--output", str(file)]
    if backend.name != "mxnet":
        for measure in ("training", "loaders", "start", "checkpoints"):
            command += ["--only", measure]
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    left_out = [line for line in done.stdout.splitlines() if line.startswith("left out")]
    assert [line for line in left_out if "albumentations" not in line] == []
    found = json.loads(file.read_text())
    assert f"step {backend.name} fp32" in found["training"]["rates"]
    growth = {"options", "batch size", "memory"} if backend.name != "mxnet" else set()
    for name in set(TABLES) - growth:
        assert backend.name in figures(name, file)
    assert file.with_suffix(".png").exists() == ("growth" in found)
