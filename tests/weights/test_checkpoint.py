"""Checkpoints are read back as they were saved, and every other file is refused in one line."""

import json
import os
import pickle
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from common.errors import UserError
from common.metrics import Epoch
from common.reference import State
from common.weights.canonical import Weights, initial_weights, is_buffer
from common.weights.checkpoint import Checkpoint, load_checkpoint, num_bytes, save_checkpoint
from common.weights.digest import with_digest
from common.weights.files import read_stored
from common.weights.safetensors import CHECKPOINT, OPTIMIZER, save_weights

METADATA = {"backend": "pytorch", "classes": '["ant", "bee", "cow"]', "image_size": "16"}
EPOCHS = tuple(
    Epoch(
        number,
        1 / 3 / number,
        0.5,
        None if number == 1 else 0.75,
        1e-3,
        40,
        seconds=1.5,
        step_seconds=1.25,
    )
    for number in (1, 2)
)


def narrow(seed: int = 0) -> Weights:
    return initial_weights(3, num_channels=2, seed=seed)


def checkpoint(*slots: str) -> Checkpoint:
    trained = {name: w for name, w in narrow().items() if not is_buffer(name)}
    state = State(
        10, {slot: {n: w * (i + 2) for n, w in trained.items()} for i, slot in enumerate(slots)}
    )
    return Checkpoint(narrow(), state, EPOCHS, METADATA)


ADAM, SGD = ("first", "second"), ("momentum",)


@pytest.fixture
def path(tmp_path) -> Path:
    """A checkpoint of a narrow network and Adam."""
    path = tmp_path / "flip-seed-0-0002.safetensors"
    save_checkpoint(path, checkpoint(*ADAM))
    return path


def refused(path: Path, *words: str) -> None:
    """Check that a file is refused in one line with its name and ``words``."""
    with pytest.raises(UserError) as error:
        load_checkpoint(path)
    line = str(error.value)
    assert "\n" not in line
    assert path.name in line
    for word in words:
        assert word in line


@pytest.mark.parametrize("slots", [ADAM, SGD])
def test_what_is_saved_is_read_back(tmp_path, slots):
    path, saved = tmp_path / "new" / "0002.safetensors", checkpoint(*slots)
    save_checkpoint(path, saved)
    assert os.listdir(path.parent) == [path.name]
    read = load_checkpoint(path)
    assert read.epochs == saved.epochs
    assert read.epoch == 2
    assert read.metadata == METADATA
    assert read.state.steps == saved.state.steps
    for own, other in (
        (read.weights, saved.weights),
        *((read.state.slots[slot], saved.state.slots[slot]) for slot in slots),
    ):
        assert own.keys() == other.keys()
        for name in own:
            np.testing.assert_array_equal(own[name], other[name])
    assert read.state.slots.keys() == set(slots)
    assert path.stat().st_size == pytest.approx(num_bytes(saved.weights, len(slots)), rel=0.2)


def test_a_checkpoint_is_also_a_weights_file_with_the_metadata_of_its_run(path):
    stored = read_stored(path, {})
    assert stored.metadata == METADATA
    np.testing.assert_array_equal(stored.weights["fc.weight"], narrow()["fc.weight"])


# --- Damaged files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0, 0.0001, 0.01, 0.5, 0.999])
def test_a_truncated_checkpoint_is_refused(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    refused(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(share=st.floats(0, 1, exclude_max=True), header=st.booleans(), bit=st.integers(0, 7))
def test_a_flipped_bit_is_found_wherever_it_is(path, tmp_path, share, header, bit):
    content = bytearray(path.read_bytes())
    size = 8 + int.from_bytes(content[:8], "little") if header else len(content)
    content[int(share * size)] ^= 1 << bit
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(content)
    try:
        read = load_checkpoint(damaged)
    except UserError:
        return
    assert (read.epochs, read.state.steps) == (EPOCHS, 10)
    original = load_checkpoint(path)
    for name, weight in original.weights.items():
        np.testing.assert_array_equal(read.weights[name], weight)
    for slot, arrays in original.state.slots.items():
        for name, array in arrays.items():
            np.testing.assert_array_equal(read.state.slots[slot][name], array)


# --- Other files -----------------------------------------------------------------------------------------------------


def test_a_weights_file_is_no_checkpoint(tmp_path):
    save_weights(tmp_path / "w.safetensors", narrow(), METADATA)
    refused(tmp_path / "w.safetensors", "not a checkpoint")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04 an archive of PyTorch",
        pickle.dumps({"state_dict": [1, 2]}),
        json.dumps({"epochs": 3}).encode(),
        save({"layer1.0.conv1.weight": np.ones((2, 2), np.float32)}),  # as timm names it
        save({"a": np.ones(2, np.float32)}, {"format": CHECKPOINT}),
        save({f"{OPTIMIZER}first.fc.bias": np.ones(2, np.float32)}, {"format": CHECKPOINT}),
    ],
)
def test_a_foreign_file_is_refused(tmp_path, content):
    (tmp_path / "foreign.safetensors").write_bytes(content)
    refused(tmp_path / "foreign.safetensors")


def test_a_folder_and_a_missing_file_are_refused(tmp_path):
    (tmp_path / "folder.safetensors").mkdir()
    for name in ("folder", "missing"):
        refused(tmp_path / f"{name}.safetensors")


# --- Files that somebody wrote with a right checksum -----------------------------------------------------------------


def plain(**changes: Any) -> list[dict[str, Any]]:
    """Return the epochs as JSON types, the last one changed."""
    first, last = map(asdict, EPOCHS)
    return [first, last | changes]


def rewrite(path: Path, arrays: dict[str, Any], **metadata: str | None) -> None:
    """Write a checkpoint with changed arrays (None removes one) and metadata, and with the checksum of that."""
    saved = checkpoint(*ADAM)
    kept: dict[str, Any] = dict(saved.weights)
    for slot, own in saved.state.slots.items():
        kept |= {f"{OPTIMIZER}{slot}.{name}": array for name, array in own.items()}
    kept = {name: array for name, array in (kept | arrays).items() if array is not None}
    about = METADATA | {"format": CHECKPOINT, "steps": "10", "epochs": json.dumps(plain())}
    about = {name: text for name, text in (about | metadata).items() if text is not None}
    path.write_bytes(save(kept, with_digest(kept, about)))


def test_an_unchanged_file_of_this_kind_is_read(path):
    rewrite(path, {})
    assert load_checkpoint(path).epochs == EPOCHS


@pytest.mark.parametrize(
    "epochs",
    [
        "",
        "[",
        "[" * 100_000,
        "null",
        "3",
        '"epochs"',
        "{}",
        "[]",
        "[1, 2]",
        '[{"epoch": 1}]',
        "[" + "9" * 5000 + "]",
        json.dumps([plain()[1]]),
        json.dumps(plain()[::-1]),
        json.dumps([*plain(), plain()[0]]),
        *(
            json.dumps(plain(**change))
            for change in (
                {"epoch": 3},
                {"epoch": -2},
                {"epoch": "2"},
                {"epoch": 10**400},
                {"images": 0},
                {"images": -1},
                {"images": 2.5},
                {"images": None},
                {"images": True},
                {"images": 10**30},
                {"train_loss": float("nan")},
                {"train_loss": float("inf")},
                {"train_loss": None},
                {"train_loss": "low"},
                {"train_loss": 10**400},
                {"train_acc": [0.5]},
                {"held_out_acc": float("-inf")},
                {"held_out_acc": {}},
                {"learning_rate": float("nan")},
                {"learning_rate": "0.1"},
                {"seconds": None},
                {"step_seconds": float("nan")},
                {"more": 1},
                {"line\nbreak\x1b[2J": 1},
            )
        ),
    ],
)
def test_epochs_that_no_training_has_are_refused(path, epochs):
    rewrite(path, {}, epochs=epochs)
    refused(path, "damaged checkpoint")


@pytest.mark.parametrize(
    "steps", ["", "-1", "81", "1e3", "0x10", "nan", "9" * 5000, str(2**63), "10\n", None]
)
def test_steps_that_do_not_fit_the_epochs_are_refused(path, steps):
    rewrite(path, {}, steps=steps)
    if steps == "10\n":  # int() takes it, and it is the same number
        assert load_checkpoint(path).state.steps == 10
    else:
        refused(path, "damaged checkpoint")


FC = narrow()["fc.bias"]


@pytest.mark.parametrize(
    "arrays",
    [
        {"fc.bias": None},
        {"more": FC},
        {"more\nlines\x1b[2J": FC},
        {"fc.bias": FC.astype(np.float64)},
        {"fc.bias": FC.astype(np.float16)},
        {"fc.bias": FC.astype(np.int32)},
        {"fc.bias": FC * np.nan},
        {"bn.running_var": -np.ones(2, np.float32)},
        {"optimizer.first.fc.bias": None},
        {"optimizer.first.more": FC},
        {"optimizer.first": FC},
        {"optimizer.": FC},
        {"optimizer.third.fc.bias": FC},
        {"optimizer.momentum.fc.bias": FC},
        {"optimizer.first.fc.bias": FC[:2]},
        {"optimizer.first.fc.bias": FC.astype(np.float64)},
        {"optimizer.first.fc.bias": FC + np.inf},
        {"optimizer.first.bn.running_mean": np.ones(2, np.float32)},
        {
            f"optimizer.{slot}.{name}": None
            for slot in ADAM
            for name in narrow()
            if not is_buffer(name)
        },
    ],
)
def test_arrays_that_no_training_has_are_refused(path, arrays):
    rewrite(path, arrays)
    refused(path)
