"""Converting weights between the frameworks' files: every direction, the check, and the command."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from conftest import filled_weights

import backends
import run
from common.commands.convert import convert, proof_images
from common.errors import UserError, UserNotice
from common.weights import checks, gluon, keras
from common.weights import files as weight_files
from common.weights.canonical import Weights, initial_weights
from common.weights.files import Stored, read_stored
from common.weights.params import write_params
from common.weights.safetensors import save_weights

# {format: the backend that computes with it}
KINDS = {
    ".safetensors": "NumPy",
    ".pt": "pytorch",
    ".params": "mxnet",
    ".weights.h5": "tensorflow",
}
METADATA = {"classes": '["a", "ü, \\u65e5"]', "data": "shapes"}
HOLDS_METADATA = (".safetensors", ".weights.h5")


@pytest.fixture(scope="module")
def files(loaded, weights, tmp_path_factory) -> dict[str, Path]:
    """The same weights in a file of every format."""
    folder = tmp_path_factory.mktemp("files")
    paths = {suffix: folder / f"net{suffix}" for suffix in KINDS}
    for path in paths.values():
        weight_files.write_weights(path, weights, METADATA, loaded)
    return paths


@pytest.fixture
def source(weights, tmp_path) -> Path:
    """A file that needs no framework."""
    path = tmp_path / "in.safetensors"
    save_weights(path, weights, {})
    return path


def same(found: Weights, wanted: Weights) -> bool:
    return list(found) == list(wanted) and all(
        found[name].dtype == np.float32 and found[name].tobytes() == wanted[name].tobytes()
        for name in wanted
    )


def refused(capsys, *words: object) -> str:
    """Run the command, check that it fails with one line, and return the line."""
    code = run.main(["convert", *map(str, words)])
    err = capsys.readouterr().err
    assert code == 2, err
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1, err
    return err


# --- Every direction -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("source", "target"), list(product(KINDS, KINDS)))
def test_every_format_is_converted_to_every_format_bit_for_bit(
    loaded, files, weights, tmp_path, capsys, source, target
):
    path = tmp_path / f"out{target}"
    convert(files[source], path, loaded)
    found = read_stored(path, loaded)
    assert same(found.weights, weights)
    kept = source in HOLDS_METADATA and target in HOLDS_METADATA
    assert found.metadata == (METADATA if kept else {})
    out = capsys.readouterr().out
    assert "all 110 arrays are the same to the bit" in out
    if source == target == ".safetensors":
        assert "not checked by a framework" in out
    else:
        assert f": {KINDS[source]}, then {KINDS[target]}\n" in out
    assert (f"not in {path}" in out) == (source in HOLDS_METADATA and not kept)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_networks_of_other_channels_are_compared_on_noise(loaded, tmp_path, capsys):
    weights = filled_weights(2, in_channels=1, num_channels=8)
    save_weights(tmp_path / "in.safetensors", weights, {})
    for suffix in (".params", ".pth", ".weights.h5"):
        convert(tmp_path / "in.safetensors", tmp_path / f"out{suffix}", loaded)
        assert "images of noise" in capsys.readouterr().out
        assert same(read_stored(tmp_path / f"out{suffix}", loaded).weights, weights)


@pytest.mark.parametrize("suffix", [".pt", ".params"])
@pytest.mark.parametrize("kind", [np.float16, np.float64])
def test_files_of_another_precision_are_converted(loaded, weights, tmp_path, suffix, kind):
    import torch

    path = tmp_path / f"other{suffix}"
    arrays = {name: weight.astype(kind) for name, weight in weights.items()}
    if suffix == ".pt":
        torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, path)
    else:
        write_params(path, {gluon.NAMES[name]: array for name, array in arrays.items()})
    convert(path, tmp_path / "out.safetensors", loaded)
    found = read_stored(tmp_path / "out.safetensors", loaded).weights
    assert same(found, {name: array.astype(np.float32) for name, array in arrays.items()})


def test_rounding_gives_one_notice(loaded, weights, tmp_path, recwarn):
    arrays = {gluon.NAMES[name]: weight + 1e-12 for name, weight in weights.items()}
    write_params(
        tmp_path / "in.params", {name: a.astype(np.float64) + 1e-12 for name, a in arrays.items()}
    )
    convert(tmp_path / "in.params", tmp_path / "out.safetensors", loaded)
    assert sum("rounded to float32" in str(warning.message) for warning in recwarn) == 1


def test_metadata_that_do_not_fit_are_omitted_and_listed(loaded, weights, tmp_path, capsys):
    save_weights(tmp_path / "in.safetensors", weights, {"classes": "x" * 70_000})
    convert(tmp_path / "in.safetensors", tmp_path / "out.weights.h5", loaded)
    assert "cannot hold it: classes" in capsys.readouterr().out


# --- The check -------------------------------------------------------------------------------------------------------


def swap_statistics(table: dict) -> dict:
    other = {"running_mean": "running_var", "running_var": "running_mean"}
    swapped = {}
    for name in table:
        layer, _, kind = name.rpartition(".")
        swapped[name] = table[f"{layer}.{other.get(kind, kind)}"]
    return swapped


def transposed(array: np.ndarray) -> np.ndarray:
    return array.transpose(3, 2, 1, 0) if array.ndim == 4 else array.T


def sabotage(how: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Break reading and writing in the same way, so that the arrays are read back; return the broken formats."""
    if how == "Gluon's statistics are swapped":
        monkeypatch.setattr(gluon, "NAMES", swap_statistics(gluon.NAMES))
        return ".safetensors", ".params"
    if how == "PyTorch's statistics are swapped":
        from backends.pytorch import weights as tab

        monkeypatch.setattr(
            tab, "check_weights", lambda *both: swap_statistics(checks.check_weights(*both))
        )
        # Negative variances would be found before the logits are compared.
        monkeypatch.setattr(weight_files, "check_values", lambda weights, source: None)
        return ".pt", ".safetensors"
    from backends.tensorflow import weights as tab

    monkeypatch.setattr(tab, "to_keras", transposed)
    monkeypatch.setattr(keras, "from_keras", lambda array: np.array(transposed(array), order="C"))
    return ".safetensors", ".weights.h5"


@pytest.mark.parametrize(
    "how",
    [
        "Gluon's statistics are swapped",
        "PyTorch's statistics are swapped",
        "Keras' kernels are transposed",
    ],
)
def test_a_wrong_conversion_is_refused_even_if_reading_has_the_same_mistake(
    loaded, files, tmp_path, monkeypatch, how
):
    source, target = sabotage(how, monkeypatch)
    with pytest.raises(UserError, match=r"differ too much|are not all finite"):
        convert(files[source], tmp_path / f"out{target}", loaded)
    assert not list(tmp_path.iterdir())


def write_wrong(monkeypatch: pytest.MonkeyPatch, change: Callable[[Weights], Weights]) -> None:
    """Make the writer of `.params` files write other weights."""
    write = weight_files.WRITERS[".params"]
    monkeypatch.setitem(
        weight_files.WRITERS,
        ".params",
        lambda path, weights, metadata: write(path, change(weights), metadata),
    )


def test_a_changed_bit_is_refused_by_name_and_the_old_file_stays(
    loaded, files, tmp_path, monkeypatch
):
    path = tmp_path / "out.params"
    path.write_bytes(b"before")
    write_wrong(monkeypatch, lambda w: w | {"bn.bias": np.nextafter(w["bn.bias"], np.float32(9))})
    with pytest.raises(UserError, match=r"changed when the file was read back: \['bn\.bias'\]"):
        convert(files[".pt"], path, loaded)
    assert path.read_bytes() == b"before"
    assert [file.name for file in tmp_path.iterdir()] == ["out.params"]


def test_a_failed_conversion_leaves_no_folder(source, tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    write_wrong(monkeypatch, lambda w: w | {"bn.bias": w["bn.bias"] + 1})
    for out in ("new/newer/out.params", "there/new/out.params"):
        with pytest.raises(UserError, match="changed when the file was read back"):
            convert(source, tmp_path / out, {})
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["in.safetensors", "there"]


def test_logits_that_are_not_finite_are_refused(loaded, weights, tmp_path):
    large = {name: np.full_like(w, 1e38) if w.ndim > 1 else w for name, w in weights.items()}
    save_weights(tmp_path / "large.safetensors", large, {})
    with pytest.raises(UserError, match=r"\(NumPy, then mxnet\) are not all finite"):
        convert(tmp_path / "large.safetensors", tmp_path / "out.params", loaded)


def test_the_output_says_that_a_dead_network_proves_little(loaded, tmp_path, capsys):
    weights = initial_weights(3, num_channels=8)
    dead = weights | {"bn.weight": np.zeros_like(weights["bn.weight"])}
    save_weights(tmp_path / "dead.safetensors", dead, {})
    convert(tmp_path / "dead.safetensors", tmp_path / "dead.params", loaded)
    assert "give every image the same logits" in capsys.readouterr().out


def test_the_comparison_uses_shapes_or_fixed_noise():
    images, what = proof_images(3)
    assert (images.shape, images.dtype) == ((16, 3, 32, 32), np.float32)
    assert what == "the shapes test set"
    assert images.min() >= 0
    assert 0.9 < images.max() <= 1
    noise, what = proof_images(2)
    assert (noise.shape, what) == ((16, 2, 32, 32), "noise")
    np.testing.assert_array_equal(noise, proof_images(2)[0])


# --- The command -----------------------------------------------------------------------------------------------------


@pytest.mark.slow  # a minute on a busy machine; the next test checks the order of the imports
def test_the_command_converts_through_two_frameworks_in_one_process(loaded, files, tmp_path):
    """PyTorch must be imported first, even though TensorFlow's file is the first argument."""
    result = subprocess.run(
        [sys.executable, "run.py", "convert", files[".weights.h5"], tmp_path / "out.pt"],
        cwd=Path(run.__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert result.stdout.splitlines()[-1] == f"wrote {tmp_path / 'out.pt'}"
    assert "tensorflow, then pytorch" in result.stdout


def test_pytorch_is_imported_before_tensorflow(monkeypatch):
    order: list[str] = []
    monkeypatch.setattr(backends, "load", lambda name, *_: order.append(name))
    backends.load_several(["tensorflow"], ["mxnet", "pytorch", "tensorflow"])
    assert order == ["pytorch", "mxnet", "tensorflow"]


def test_a_broken_framework_that_only_checks_is_skipped(monkeypatch):
    def load(name: str, *_) -> str:
        if name == "mxnet":
            raise ImportError("libsomething.so: no such file\nand more")
        return name

    monkeypatch.setattr(backends, "load", load)
    with pytest.warns(UserNotice, match=r"mxnet is left out, .*: libsomething\.so: no such file$"):
        assert list(backends.load_several(["pytorch"], ["mxnet"])) == ["pytorch"]
    with pytest.raises(ImportError):
        backends.load_several(["mxnet"])


def test_an_unknown_backend_is_refused_among_several():
    with pytest.raises(UserError, match="unknown backend 'caffe'"):
        backends.load_several(["caffe"])


def test_a_framework_that_only_checks_may_be_missing(source, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(backends, "installed", lambda name: False)
    monkeypatch.setattr(backends, "missing_packages", lambda name: [name])
    with pytest.warns(UserNotice, match="backend mxnet"):
        code = run.main(["convert", str(source), str(tmp_path / "out.params")])
    out, err = capsys.readouterr()
    assert code == 0, err
    assert "not checked by a framework" in out
    assert "computed" not in out
    assert "--extra pytorch" in refused(capsys, source, tmp_path / "out.pt")
    assert not (tmp_path / "out.pt").exists()


def test_invalid_paths_are_refused_before_any_framework_is_loaded(
    source, tmp_path, monkeypatch, capsys
):
    def load(*names: object, **_: object) -> None:
        raise AssertionError("a framework was loaded")

    monkeypatch.setattr(backends, "load_several", load)
    there = tmp_path / "there.pt"
    there.write_bytes(b"before")
    (tmp_path / "folder.pt").mkdir()
    (tmp_path / "link.safetensors").symlink_to(source)
    os.link(source, tmp_path / "hard.safetensors")
    (tmp_path / "dangling.pt").symlink_to(tmp_path / "nowhere.pt")
    (tmp_path / "other.params").symlink_to(there)
    (tmp_path / "circle.params").symlink_to(tmp_path / "circle.params")
    too_long = "x" * 300 + ".params"
    names = sorted(tmp_path.iterdir())
    for first, second, words, *force in [
        ("missing.pt", "out.params", "there is no weights file"),
        ("folder.pt", "out.params", "is a folder"),
        (too_long, "out.params", "File name too long"),
        ("in.safetensors", too_long, "File name too long"),
        ("in.safetensors", "circle.params", "circle.params: ", "--force"),
        ("in.safetensors", "folder.pt", "is a folder", "--force"),
        ("in.safetensors", "in.safetensors", "the same file", "--force"),
        ("in.safetensors", "link.safetensors", "the same file", "--force"),
        ("in.safetensors", "hard.safetensors", "the same file", "--force"),
        ("in.safetensors", "there.pt", "already exists: choose another name, or add --force"),
        ("in.safetensors", "dangling.pt", "already exists"),
        ("in.safetensors", "other.params", "a file of another format", "--force"),
        ("in.safetensors", "out.h5", "end in .safetensors, .params, .weights.h5, .pt, .pth"),
        ("in.safetensors", "out", "weights files end in"),
        ("there.bin", "out.pt", "weights files end in"),
        ("in.safetensors", "there.pt/out.params", "is a file; choose another folder"),
    ]:
        assert words in refused(capsys, tmp_path / first, tmp_path / second, *force)
    assert sorted(tmp_path.iterdir()) == names
    assert there.read_bytes() == b"before"


@pytest.mark.skipif(getattr(os, "getuid", int)() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_refused(source, tmp_path, capsys):
    (tmp_path / "locked").mkdir(mode=0o500)
    assert "no permission in" in refused(capsys, source, tmp_path / "locked" / "out.params")


def test_force_replaces_the_target_of_a_link(source, weights, tmp_path, monkeypatch):
    monkeypatch.setattr(backends, "load_several", lambda *names: {})
    (tmp_path / "elsewhere").mkdir()
    real, link = tmp_path / "elsewhere" / "real.params", tmp_path / "out.params"
    real.write_bytes(b"before")
    link.symlink_to(real)
    assert run.main(["convert", "--force", str(source), str(link)]) == 0
    assert link.is_symlink()
    assert same(read_stored(real, {}).weights, weights)


# --- The content of a file -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_invalid_values_are_not_converted(weights, tmp_path, capsys, value):
    wrong = weights | {"fc.bias": np.full(3, value, np.float32)}
    save_weights(tmp_path / "in.safetensors", wrong, {})
    assert "fc.bias" in refused(capsys, tmp_path / "in.safetensors", tmp_path / "out.params")


def test_the_first_differing_class_is_named(weights):
    names = ["a", "b", "d"]
    stored = Stored(Path("x.safetensors"), weights, {"classes": json.dumps(names)})
    with pytest.raises(UserError, match=r"class 2 is d in .*, but c in shapes$"):
        stored.check_data("shapes", ["a", "b", "c"])
