"""What `python run.py differences` measures and prints, and the page that it makes of that and of the source."""

import ast
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from conftest import load_or_skip, python
from numpy_backend import changed, numpy_backend

import backends
from common import cli
from common.cli import Differences
from common.errors import UserError
from common.parity.initialization import gluon_start, pytorch_start
from common.reference import ALIGNED, KNOWN_DIFFERENCES
from docs.differences import command, effects, native, notes
from docs.differences.effects import NAMES
from docs.differences.page import load_measured, page, save_measured, slug
from docs.differences.text import GROUPS, SECTIONS

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "differences.md"
RUN = ROOT / "run.py"
PLANTED = [known for known in KNOWN_DIFFERENCES if not known.holds(ALIGNED)]
TRIED = [name for names in native.TRIALS for name in names]


# --- A framework left alone ------------------------------------------------------------------------------------------


def own_ways(backend) -> set[str]:
    found = native.measure(backend, {}, TRIED).findings
    return {finding.difference for finding in found if finding.way == native.THIS}


def test_a_framework_that_does_all_as_aligned_has_no_difference():
    assert own_ways(numpy_backend()) == set()


@pytest.mark.parametrize("known", PLANTED, ids=lambda known: known.name)
def test_a_difference_planted_in_a_framework_s_own_operation_is_found_and_no_other(known):
    assert own_ways(numpy_backend(known.conventions())) == {known.name}


def test_two_differences_in_one_operation_are_told_apart():
    conventions = replace(ALIGNED, adam_epsilon=1e-7, adam_epsilon_place="inside")
    backend = numpy_backend(conventions)
    assert own_ways(backend) == {"Adam's epsilon", "Adam's epsilon inside"}
    for finding in native.measure(
        backend, {}, ["Adam's epsilon", "Adam's epsilon inside"]
    ).findings:
        assert finding.known < 1e-12 < 0.1 < finding.aligned


def test_a_way_that_is_neither_the_aligned_one_nor_this_is_said_to_be_another():
    backend = numpy_backend(replace(ALIGNED, saturation="blue"))
    (hsv, blue) = native.measure(
        backend, {}, ["saturation of HSV", "saturation with wrong grey"]
    ).findings
    assert (hsv.way, blue.way) == (native.ANOTHER, native.THIS)


@pytest.mark.parametrize("start", [pytorch_start, gluon_start])
def test_a_framework_s_own_initial_weights_are_told_by_their_spread(start):
    weights = start()
    backend = changed(numpy_backend(), "probes", native_weights=lambda: weights)
    (name,) = {
        pytorch_start: ["PyTorch's initial weights"],
        gluon_start: ["Gluon's initial weights"],
    }[start]
    assert own_ways(backend) == {name}


def sharing_loader(images, batch_size, num_workers, seed):
    """Workers that all start from one state, each with the batches that come to it."""
    rngs = [np.random.default_rng(seed) for _ in range(max(1, num_workers))]
    flips = np.concatenate(
        [rngs[i % len(rngs)].random(batch_size) < 0.5 for i in range(len(images) // batch_size)]
    )
    return np.where(flips[:, None, None, None], images[:, :, ::-1], images)


def test_a_backend_with_no_ways_of_its_own_is_refused_in_words():
    backend = numpy_backend()
    del backend.probes.native_weights
    with pytest.raises(UserError, match="numpy shows nothing of its own"):
        native.measure(backend, {}, ["padding"])


def test_workers_that_share_a_state_are_seen_by_their_flips():
    alone = native.own_draws(numpy_backend())
    assert alone.any_two < 0.8
    assert alone.again == 1
    assert 0.3 < alone.without < 0.7
    sharing = changed(numpy_backend(), "probes", native_flips=sharing_loader)
    assert native.own_draws(sharing).any_two == 1


def test_a_loader_that_gives_other_images_is_refused():
    images = np.random.default_rng(0).integers(0, 256, (4, 2, 2, 3))
    assert native.flipped(images[:, :, ::-1], images).all()
    with pytest.raises(ValueError, match="other images"):
        native.flipped(images[::-1], images)


# --- The command -----------------------------------------------------------------------------------------------------


def test_a_difference_is_measured_alone(monkeypatch, capsys):
    monkeypatch.setattr(effects, "NUM_STEPS", 2)
    assert command.run(Differences(("padding", "sum of losses")), RUN) == 0
    printed = capsys.readouterr().out
    assert "padding (TensorFlow" in printed
    assert "8 times as large" in printed
    assert "biased running variance" not in printed


def test_what_the_data_differences_do_is_measured_too(monkeypatch):
    monkeypatch.setattr(effects, "NUM_STEPS", 2)
    images, kernels, workers = effects.effects((*native.LAYOUTS, native.WORKERS))
    assert images.step_parameters > 0.1
    assert kernels.step_parameters > 0.1
    assert workers.step_parameters == 0  # the first batch is drawn alike
    assert workers.loss[0] != workers.loss[1]


def test_turned_kernels_are_what_reversing_all_axes_of_keras_layout_gives():
    weight = np.arange(2 * 3 * 4 * 4).reshape(2, 3, 4, 4)
    turned = effects.turned_over({"conv.weight": weight})["conv.weight"]
    np.testing.assert_array_equal(turned, weight.swapaxes(2, 3))


def test_an_image_misread_has_the_values_of_a_pixel_side_by_side():
    X = np.arange(3 * 6 * 6).reshape(1, 3, 6, 6)
    wrong = effects.misread(X)
    assert wrong.shape == X.shape
    assert wrong[0, 0, 0, :3].tolist() == X[0, :, 0, 0].tolist()
    assert set(wrong[0, 0].ravel()) == set(X[0, :, :2].ravel())  # a third of the rows


def test_a_part_of_the_page_is_not_written_over_the_whole(tmp_path):
    with pytest.raises(UserError, match="leave out --only"):
        command.run(Differences(("padding",), tmp_path / "differences.md"), RUN)


def test_an_unknown_difference_is_refused_with_the_names_that_there_are():
    with pytest.raises(UserError, match=r"choose from padding, BatchNorm's epsilon"):
        command.run(Differences(("paddings",)), RUN)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (Differences(output=Path("differences.json")), "name it .md"),
        (Differences(measured=Path("differences.json")), "give it --output alone"),
        (
            Differences(measured=Path("a.json"), output=Path("b.md"), backends=("mxnet",)),
            "give it --output alone",
        ),
    ],
)
def test_options_that_do_not_go_together_are_refused(command, message):
    with pytest.raises(UserError, match=message):
        command.run(command, RUN)


def test_backends_are_named_as_in_other_commands():
    def parse(text):
        return cli.parse(["differences", *text.split()], list(backends.FRAMEWORKS))

    assert parse("").backends == ()
    assert parse("--backend mxnet --backend tensorflow").backends == ("mxnet", "tensorflow")
    assert parse("--backend all").backends == tuple(backends.FRAMEWORKS)
    assert parse("--only padding --output a.md") == Differences(("padding",), Path("a.md"))
    with pytest.raises(UserError, match="unknown backend"):
        parse("--backend jax")


def stand_in(folder: Path, body: str) -> Path:
    """A run.py that writes what a backend's process would, or does not."""
    script = folder / "run.py"
    script.write_text(f"import sys\ninto = sys.argv[sys.argv.index('--into') + 1]\n{body}\n")
    return script


def test_a_framework_is_measured_in_a_process_of_its_own_and_printed(tmp_path, capsys):
    found = native.measure(numpy_backend(), {"numpy": "1.0"}, ["padding", native.LAYOUTS[0]])
    plain = tmp_path / "plain.json"
    plain.write_text(json.dumps(asdict(found)))
    script = stand_in(tmp_path, f"open(into, 'w').write(open({str(plain)!r}).read())")
    assert command.run(Differences(backends=("mxnet",)), script) == 0
    printed = capsys.readouterr().out
    assert "numpy left alone, with numpy 1.0" in printed
    assert "padding: as aligned" in printed
    assert "a convolution's weights: outputs, inputs, height, width\n" in printed
    assert "to a convolution of 3 inputs: 3 channels\n" in printed
    assert "taken, for 5 inputs\n" in printed


def test_a_framework_that_breaks_off_is_a_failure_and_no_page_is_written(tmp_path, capsys):
    script = stand_in(tmp_path, "sys.exit(3)")
    command = Differences(backends=("mxnet",), output=tmp_path / "page.md")
    assert command.run(command, script) == 1
    assert capsys.readouterr().err == "error: the process of mxnet ended with exit code 3\n"
    assert not command.output.exists()


@pytest.mark.parametrize("text", ["", "{}", '{"effects": 3}'])
def test_a_file_that_holds_no_measurements_is_refused(tmp_path, text):
    path = tmp_path / "measured.json"
    path.write_text(text)
    with pytest.raises(UserError, match="does not hold"):
        load_measured(path)


# --- The page --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published():
    return load_measured(PAGE.with_suffix(".json"))


@pytest.fixture(scope="module")
def source_notes():
    return notes.read_notes(ROOT)


def test_the_published_page_is_what_the_published_numbers_and_the_source_give(
    published, source_notes
):
    again = (
        "python run.py differences --measured docs/differences.json --output docs/differences.md"
    )
    assert PAGE.read_text(encoding="utf-8") == page(published, source_notes), again


def test_the_page_can_be_made_again_without_measuring(tmp_path):
    command = Differences(output=tmp_path / "page.md", measured=PAGE.with_suffix(".json"))
    assert command.run(command, RUN) == 0
    assert command.output.read_bytes() == PAGE.read_bytes()


def test_what_was_measured_comes_back_from_its_file(published, tmp_path):
    save_measured(tmp_path / "again.json", published)
    assert load_measured(tmp_path / "again.json") == published
    assert (tmp_path / "again.json").read_bytes() == PAGE.with_suffix(".json").read_bytes()


def test_a_changed_note_changes_the_page(published, source_notes):
    for i, note in enumerate(source_notes):
        others = [*source_notes[:i], replace(note, text="otherwise"), *source_notes[i + 1 :]]
        assert page(published, others) != page(published, source_notes), note.place


def test_a_backend_without_a_title_goes_by_its_name(published, source_notes):
    fourth = replace(published.natives[0], backend="numpy", versions={"numpy": "2.0"})
    notes_of_four = [*source_notes, notes.Note("backends/numpy/trainer.py", "sgd", "it is slow")]
    text = page(replace(published, natives=(*published.natives, fourth)), notes_of_four)
    assert "| numpy 2.0 |" in text
    assert "numpy:\n\n- `backends/numpy/trainer.py sgd`: it is slow\n" in text


def count_marks(text: str) -> int:
    """How many notes a source has, by its text alone: the marks that no reader of notes has found count too."""
    return len(notes.MARK.findall(text))


def test_every_note_of_the_source_is_on_the_page(source_notes):
    text = PAGE.read_text(encoding="utf-8")
    assert [n for n in source_notes if f"- `{n.place}`: {n.text}\n" not in text] == []
    marks = sum(
        count_marks(path.read_text(encoding="utf-8")) for path in (ROOT / "backends").rglob("*.py")
    )
    assert len(source_notes) == marks > 30


def test_notes_stand_in_the_backends_alone(source_notes):
    """Elsewhere nothing collects them. The guide's tab in NumPy has its own, as any tab has."""
    guide = ROOT / "docs" / "examples" / "numpy_tab"
    for folder in ("common", "benchmarks", "docs"):
        for path in set((ROOT / folder).rglob("*.py")) - set(guide.glob("*.py")):
            assert notes.notes_of(path.read_text(encoding="utf-8"), path.name) == [], path


def test_every_place_that_a_section_names_has_a_note(source_notes):
    places = {note.place for note in source_notes}
    assert [p for section in SECTIONS for p in section.notes if p not in places] == []


def test_there_is_a_section_for_every_difference_that_is_measured():
    assert {section.name for section in SECTIONS} == set(NAMES)
    assert len(SECTIONS) == len(NAMES)
    assert {section.group for section in SECTIONS} == set(GROUPS)
    text = PAGE.read_text(encoding="utf-8")
    for name in NAMES:
        assert f"\n### {name[0].upper()}{name[1:]}\n" in text
        assert f"[{name}](#{slug(name)})" in text
        assert f'python run.py differences --only "{name}"' in text


def test_what_the_page_says_of_a_difference_and_one_operation_is_what_the_source_gives(published):
    said = {e.name: (e.native_to, e.meaning, e.operation) for e in published.effects}
    for case in effects.cases():
        found = case.native_to, case.meaning, case.operation()
        assert said[case.name] == found, "measure again"


def test_the_page_says_what_every_framework_does_by_itself(published):
    assert [n.backend for n in published.natives] == list(backends.FRAMEWORKS)
    for found in published.natives:
        tried = {finding.difference for finding in found.findings}
        floats = {"levels rounded down"} if found.backend == "tensorflow" else set()
        assert tried == set(TRIED) - floats
        assert found.layouts
        assert found.workers


def test_numbers_of_other_differences_than_the_source_s_make_no_page(published, source_notes):
    fewer = replace(published, effects=published.effects[:-1])
    with pytest.raises(UserError, match=f"not measured yet: {NAMES[-1]}"):
        page(fewer, source_notes)


def names_in(path: Path) -> set[str]:
    """The functions and classes of a file, with the classes around them."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {name for name, _ in notes.definitions(tree)}


def test_every_function_that_the_page_shows_is_there():
    for section in SECTIONS:
        for source in section.sources:
            arguments, *options = source.splitlines()
            file, *names = arguments.split()
            if "/" in file:
                assert set(names) <= names_in(ROOT / file), source
                continue
            own = {o.split(":")[1]: o.split(":")[2].split() for o in options}
            for name in backends.FRAMEWORKS:
                wanted, place = own.get(name, names), file
                if wanted[0].endswith(".py"):
                    place, *wanted = wanted
                assert set(wanted) <= names_in(ROOT / "backends" / name / place), (name, source)


# --- Notes -----------------------------------------------------------------------------------------------------------

EXAMPLE = '''"""A file.

Differs: all of it.
"""

# Differs: a number
# on two lines.
X = 1

class Layer:
    """A layer.

    It has one thing. Differs: it has
    two. And more.

    But nothing here.
    """

    def call(self):
        # No note. Differs: not at the start.
        y = 2  # Differs: not on a line of its own
        # Differs: first.
        # Differs: second.
        return y
'''


def test_notes_are_read_from_docstrings_and_comments_with_their_place():
    found = [(n.inside, n.text) for n in notes.notes_of(EXAMPLE, "a.py")]
    assert found == [
        ("", "all of it."),
        ("", "a number on two lines."),
        ("Layer", "it has two. And more."),
        ("Layer.call", "first."),
        ("Layer.call", "second."),
    ]
    assert count_marks(EXAMPLE) == 7, "the marks that are no notes are seen by the count"


def test_the_command_line_runs_where_it_says(tmp_path):
    """`run.py` gives the page's command what it needs."""
    done = python(
        "import sys, run; sys.exit(run.main(['differences', '--measured', 'docs/differences.json',"
        f" '--output', {str(tmp_path / 'page.md')!r}]))"
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "page.md").read_bytes() == PAGE.read_bytes()


def test_a_framework_is_measured_through_the_command_line(tmp_path):
    load_or_skip("pytorch")
    done = python(
        "import sys, run; sys.exit(run.main(['differences', '--only', 'padding', '--backend', 'pytorch']))"
    )
    assert done.returncode == 0, done.stderr
    assert "pytorch left alone, with torch " in done.stdout
    assert done.stdout.count(" from the aligned way") == 1
    assert "padding: as aligned" in done.stdout
    assert "equal flips" not in done.stdout
