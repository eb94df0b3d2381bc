"""Weights move between the frameworks' files: every direction, the proof, and what is refused."""

import json
import os
import pickle
import re
import struct
import subprocess
import sys
import zipfile
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from conftest import counted, filled_weights, load_or_skip
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

import backends
import run
from backends import FRAMEWORKS
from common.commands import convert
from common.errors import UserError, UserNotice
from common.interface import Backend
from common.weights.canonical import Weights, initial_weights
from common.weights.gluon import NAMES, save_params
from common.weights.keras import add_metadata
from common.weights.params import write_params
from common.weights.safetensors import save_weights

SUFFIXES = [kind.suffix for kind in convert.kinds_of(FRAMEWORKS)]
METADATA = {"classes": '["a", "ü, \\u65e5"]', "data": "shapes"}
HOLDS_METADATA = (".safetensors", ".weights.h5")


@pytest.fixture(scope="session")
def loaded() -> dict[str, Backend]:
    """All backends in one process, in the order that a process allows."""
    return {name: load_or_skip(name) for name in FRAMEWORKS}


@pytest.fixture(scope="session")
def weights() -> Weights:
    return filled_weights()


@pytest.fixture(scope="session")
def files(loaded, weights, tmp_path_factory) -> dict[str, Path]:
    """The same weights in a file of every kind."""
    folder = tmp_path_factory.mktemp("files")
    paths = {suffix: folder / f"net{suffix}" for suffix in SUFFIXES}
    for path in paths.values():
        convert._write(path, convert.kind_of(FRAMEWORKS, path), weights, METADATA, loaded)
    return paths


@pytest.fixture
def few_images(monkeypatch):
    monkeypatch.setattr(convert, "NUM_IMAGES", 2)


def same(found: Weights, wanted: Weights) -> bool:
    return list(found) == list(wanted) and all(
        found[name].dtype == np.float32 and found[name].tobytes() == wanted[name].tobytes()
        for name in wanted
    )


def refused(capsys, *words: object) -> str:
    """Run a command that must fail with one line, and return the line."""
    code = run.main([str(word) for word in words])
    err = capsys.readouterr().err
    assert code == 2, err
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1, err
    return err


# --- Every direction -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("source", "target"), list(product(SUFFIXES, SUFFIXES)))
def test_every_kind_becomes_every_kind_to_the_bit(
    loaded, files, weights, tmp_path, capsys, few_images, source, target
):
    path = tmp_path / f"out{target}"
    convert.convert(FRAMEWORKS, files[source], path, loaded)
    found = convert.read_stored(FRAMEWORKS, path, loaded)
    assert same(found.weights, weights)
    kept = source in HOLDS_METADATA and target in HOLDS_METADATA
    assert found.metadata == (METADATA if kept else {})
    out = capsys.readouterr().out
    assert "all 110 arrays are the same to the bit" in out
    assert (f"not in {path}" in out) == (source in HOLDS_METADATA and not kept)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_each_framework_computes_its_own_side(loaded, files, tmp_path, capsys, few_images):
    sides = {
        ".pt": "pytorch",
        ".params": "mxnet",
        ".weights.h5": "tensorflow",
        ".safetensors": "NumPy",
    }
    for (source, first), (target, second) in zip(
        sides.items(), [*list(sides.items())[1:], (".pt", "pytorch")], strict=True
    ):
        convert.convert(FRAMEWORKS, files[source], tmp_path / f"{first}{target}", loaded)
        assert f": {first}, then {second}\n" in capsys.readouterr().out


def test_an_exported_file_becomes_one_for_load_parameters(loaded, weights, tmp_path, few_images):
    write_params(tmp_path / "old-0000.params", counted(weights))
    convert.convert(FRAMEWORKS, tmp_path / "old-0000.params", tmp_path / "new.params", loaded)
    net = loaded["mxnet"].resnet.resnet18(3)
    net.load_parameters(str(tmp_path / "new.params"))
    assert same(loaded["mxnet"].weights.get_weights(net), weights)


def exported(mxnet: Backend, weights: Weights, folder: Path, numpy_interface: bool) -> Path:
    """Export a network of MXNet's with these weights, and return the file of weights."""
    import mxnet as mx
    from mxnet.util import np_array, np_shape
    from test_mxnet_tab import book_s_net

    save_params(folder / "book.params", weights)
    with np_array(numpy_interface), np_shape(numpy_interface):
        net = book_s_net(3)
        net.load_parameters(str(folder / "book.params"))
        net.hybridize()
        X = np.ones((1, 3, 32, 32), np.float32)
        net(mx.np.array(X) if numpy_interface else mx.nd.array(X))
        net.export(str(folder / "net"))
    return folder / "net-0000.params"


@pytest.mark.parametrize("numpy_interface", [True, False])
def test_an_exported_network_is_proven_by_its_graph(
    loaded, weights, tmp_path, capsys, few_images, monkeypatch, numpy_interface
):
    path = exported(loaded["mxnet"], weights, tmp_path, numpy_interface)
    convert.convert(FRAMEWORKS, path, tmp_path / "out.pt", loaded)
    out = capsys.readouterr().out
    assert "mxnet, then pytorch" in out
    assert "not proven" not in out
    assert same(convert.read_stored(FRAMEWORKS, tmp_path / "out.pt", loaded).weights, weights)

    swap_batch_norms(monkeypatch)
    with pytest.raises(UserError, match="do not agree closely enough"):
        convert.convert(FRAMEWORKS, path, tmp_path / "wrong.pt", loaded)
    (tmp_path / "net-symbol.json").unlink()
    convert.convert(FRAMEWORKS, path, tmp_path / "wrong.pt", loaded)
    assert f"not proven by MXNet: which layer each name of {path}" in capsys.readouterr().out


def swap_batch_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mistake bn1 for bn2 where counted names are given to layers."""
    from common.weights import gluon

    real = gluon._canonical_of_counted
    turn = {".bn1.": ".bn2.", ".bn2.": ".bn1."}

    def swapped(*arguments):
        return {
            name: re.sub(r"\.bn[12]\.", lambda match: turn[match[0]], own)
            for name, own in real(*arguments).items()
        }

    monkeypatch.setattr(gluon, "_canonical_of_counted", swapped)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda graph: graph.pop("nodes"),
        lambda graph: graph["nodes"][3].update(op="Custom"),
        lambda graph: graph["nodes"][3].update(subgraphs=[]),
        lambda graph: graph["nodes"][3].update(inputs=[[10**6, 0, 0]]),
        lambda graph: graph["nodes"][3]["attrs"].update(pad="(99999, 99999)"),
        lambda graph: graph.update(heads=[[10**6, 0, 0]]),
        lambda graph: graph["nodes"][3]["attrs"].update(num_filter="9"),
        lambda graph: graph["nodes"][3]["attrs"].update(num_filter="no number"),
        lambda graph: graph["nodes"][1].update(name="other"),
    ],
)
def test_a_graph_of_something_else_is_refused(loaded, weights, tmp_path, few_images, spoil):
    path = exported(loaded["mxnet"], weights, tmp_path, numpy_interface=True)
    graph = json.loads((tmp_path / "net-symbol.json").read_text())
    spoil(graph)
    (tmp_path / "net-symbol.json").write_text(json.dumps(graph))
    with pytest.raises(UserError, match=r"net-symbol\.json") as error:
        convert.convert(FRAMEWORKS, path, tmp_path / "out.pt", loaded)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out.pt").exists()


def test_gluon_s_files_are_converted_without_mxnet(weights, tmp_path, capsys, few_images):
    save_weights(tmp_path / "in.safetensors", weights, {})
    convert.convert(FRAMEWORKS, tmp_path / "in.safetensors", tmp_path / "out.params", {})
    convert.convert(FRAMEWORKS, tmp_path / "out.params", tmp_path / "back.safetensors", {})
    assert same(convert.read_stored(FRAMEWORKS, tmp_path / "back.safetensors", {}).weights, weights)
    out = capsys.readouterr().out
    assert "not proven by a framework" in out
    assert "computed" not in out


def test_other_channels_are_proven_with_noise(loaded, tmp_path, capsys, few_images):
    weights = filled_weights(2, in_channels=1)
    save_weights(tmp_path / "in.safetensors", weights, {})
    for suffix in (".params", ".pt", ".weights.h5"):
        convert.convert(FRAMEWORKS, tmp_path / "in.safetensors", tmp_path / f"out{suffix}", loaded)
        assert "images of noise" in capsys.readouterr().out
        assert same(
            convert.read_stored(FRAMEWORKS, tmp_path / f"out{suffix}", loaded).weights, weights
        )


def test_a_state_dict_of_a_compiled_network_is_read(loaded, weights, tmp_path):
    import torch

    state = {f"_orig_mod.{name}": torch.from_numpy(weight) for name, weight in weights.items()}
    torch.save(state, tmp_path / "compiled.pt")
    assert same(convert.read_stored(FRAMEWORKS, tmp_path / "compiled.pt", loaded).weights, weights)
    assert loaded["pytorch"].weights.load_net(tmp_path / "compiled.pt").fc.bias.tolist() == (
        weights["fc.bias"].tolist()
    )


@pytest.mark.parametrize("suffix", [".pt", ".params"])
@pytest.mark.parametrize("kind", [np.float16, np.float64])
def test_files_of_another_precision_are_converted(
    loaded, weights, tmp_path, few_images, suffix, kind
):
    import torch

    path = tmp_path / f"other{suffix}"
    arrays = {name: weight.astype(kind) for name, weight in weights.items()}
    if suffix == ".pt":
        torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, path)
    else:
        write_params(path, {NAMES[name]: array for name, array in arrays.items()})
    convert.convert(FRAMEWORKS, path, tmp_path / "out.safetensors", loaded)
    found = convert.read_stored(FRAMEWORKS, tmp_path / "out.safetensors", loaded).weights
    assert same(found, {name: array.astype(np.float32) for name, array in arrays.items()})


def test_metadata_without_room_are_left_out_and_named(
    loaded, weights, tmp_path, capsys, few_images
):
    save_weights(tmp_path / "in.safetensors", weights, {"classes": "x" * 70_000})
    convert.convert(FRAMEWORKS, tmp_path / "in.safetensors", tmp_path / "out.weights.h5", loaded)
    assert "no place for it: classes" in capsys.readouterr().out


# --- The proof -------------------------------------------------------------------------------------------------------


def swap_statistics(weights: Weights) -> Weights:
    other = {"running_mean": "running_var", "running_var": "running_mean"}
    swapped = {}
    for name in weights:
        layer, _, kind = name.rpartition(".")
        swapped[name] = weights[f"{layer}.{other.get(kind, kind)}"]
    return swapped


def sabotage(how: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Break reading and writing alike, so that the arrays come back, and return what converts wrongly then."""
    from common.weights import gluon, keras

    if how == "Gluon's statistics are swapped":
        monkeypatch.setattr(gluon, "NAMES", swap_statistics(gluon.NAMES))
        return ".safetensors", ".params"
    if how == "PyTorch's statistics are swapped":
        from backends.pytorch import weights as tab

        check = tab.check_weights
        monkeypatch.setattr(tab, "check_weights", lambda w, s: swap_statistics(check(w, s)))
        # Variances below 0 would give it away before the logits do.
        monkeypatch.setattr(convert, "check_values", lambda weights, source: None)
        return ".pt", ".safetensors"
    from backends.tensorflow import weights as tab

    def transposed(array: np.ndarray) -> np.ndarray:
        return array.transpose(3, 2, 1, 0) if array.ndim == 4 else array.T

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
def test_a_wrong_conversion_that_reads_itself_back_is_refused(
    loaded, files, tmp_path, monkeypatch, how
):
    source, target = sabotage(how, monkeypatch)
    with pytest.raises(UserError, match=r"not agree closely enough|not all finite in NumPy"):
        convert.convert(FRAMEWORKS, files[source], tmp_path / f"out{target}", loaded)
    assert not list(tmp_path.iterdir())


def test_a_changed_bit_is_refused_by_name_and_the_old_file_stays(
    loaded, weights, files, tmp_path, monkeypatch
):
    path = tmp_path / "out.params"
    path.write_bytes(b"before")

    def spoilt(target: Path, weights: Weights) -> None:
        real(target, weights | {"bn.bias": np.nextafter(weights["bn.bias"], np.float32(9))})

    real = convert.save_params
    monkeypatch.setattr(convert, "save_params", spoilt)
    with pytest.raises(UserError, match=r"did not come back as they were: \['bn\.bias'\]"):
        convert.convert(FRAMEWORKS, files[".pt"], path, loaded, force=True)
    assert path.read_bytes() == b"before"
    assert [file.name for file in tmp_path.iterdir()] == ["out.params"]


def test_logits_that_are_no_numbers_are_no_proof(loaded, files, tmp_path, monkeypatch):
    nothing = np.full((2, 3), np.nan), "nobody"
    monkeypatch.setattr(convert, "logits", lambda *arguments: nothing)
    with pytest.raises(UserError, match="are not all finite in nobody and nobody"):
        convert.convert(FRAMEWORKS, files[".pt"], tmp_path / "out.params", loaded)


def test_a_dead_network_is_said_to_prove_little(loaded, tmp_path, capsys, few_images):
    dead = initial_weights(3) | {"bn.weight": np.zeros(64, np.float32)}
    save_weights(tmp_path / "dead.safetensors", dead, {})
    convert.convert(FRAMEWORKS, tmp_path / "dead.safetensors", tmp_path / "dead.params", loaded)
    assert "give every image the same logits" in capsys.readouterr().out


def test_the_images_of_the_proof_are_those_of_shapes_and_of_a_fixed_noise():
    images, what = convert.proof_images(3)
    assert (images.shape, images.dtype, what) == (
        (16, 3, 32, 32),
        np.float32,
        "the test set shapes",
    )
    assert images.min() >= 0
    assert 0.9 < images.max() <= 1
    noise, what = convert.proof_images(2)
    assert (noise.shape, what) == ((16, 2, 32, 32), "noise")
    np.testing.assert_array_equal(noise, convert.proof_images(2)[0])


# --- The command -----------------------------------------------------------------------------------------------------


@pytest.mark.slow  # a minute where the machine is busy; the next one holds the order of the imports
def test_the_command_converts_through_two_frameworks_in_one_process(loaded, files, tmp_path):
    """TensorFlow's file first, PyTorch's second: PyTorch must be imported first all the same."""
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


def test_backends_are_loaded_in_the_order_that_a_process_allows(monkeypatch):
    order: list[str] = []
    monkeypatch.setattr(backends, "load", lambda name, precision: order.append(name))
    backends.load_several(["tensorflow"], ["mxnet", "pytorch", "tensorflow"])
    assert order == ["pytorch", "mxnet", "tensorflow"]


def test_a_broken_framework_that_only_the_proof_wants_is_left_out(monkeypatch):
    def load(name: str, precision: str) -> str:
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


def test_a_framework_that_only_the_proof_wants_may_be_missing(
    weights, tmp_path, monkeypatch, capsys, few_images
):
    save_weights(tmp_path / "in.safetensors", weights, {})
    monkeypatch.setattr(backends, "installed", lambda name: False)
    monkeypatch.setattr(backends, "missing_packages", lambda name: FRAMEWORKS[name].packages)
    with pytest.warns(UserNotice, match="backend mxnet"):
        code = run.main(["convert", str(tmp_path / "in.safetensors"), str(tmp_path / "out.params")])
    assert code == 0, capsys.readouterr().err
    assert "not proven by a framework" in capsys.readouterr().out
    err = refused(capsys, "convert", tmp_path / "in.safetensors", tmp_path / "out.pt")
    assert "--extra pytorch" in err
    assert not (tmp_path / "out.pt").exists()


def test_paths_that_cannot_work_are_refused_before_any_framework_is_loaded(
    weights, tmp_path, monkeypatch, capsys
):
    def load(*names: object) -> None:
        raise AssertionError("a framework was loaded")

    monkeypatch.setattr(backends, "load_several", load)
    source, there = tmp_path / "in.safetensors", tmp_path / "there.pt"
    save_weights(source, weights, {})
    there.write_bytes(b"before")
    (tmp_path / "folder.pt").mkdir()
    (tmp_path / "link.safetensors").symlink_to(source)
    os.link(source, tmp_path / "hard.safetensors")
    (tmp_path / "dangling.pt").symlink_to(tmp_path / "nowhere")
    names = sorted(tmp_path.iterdir())
    for first, second, words, *force in [
        ("missing.pt", "out.params", "no weights at"),
        ("folder.pt", "out.params", "is a folder"),
        ("in.safetensors", "folder.pt", "is a folder", "--force"),
        ("in.safetensors", "in.safetensors", "the same file", "--force"),
        ("in.safetensors", "link.safetensors", "the same file", "--force"),
        ("in.safetensors", "hard.safetensors", "the same file", "--force"),
        ("in.safetensors", "there.pt", "is there already: choose another name, or add --force"),
        ("in.safetensors", "dangling.pt", "is there already"),
        (
            "in.safetensors",
            "out.h5",
            "weights end in .safetensors, .pt, .pth, .params, .weights.h5",
        ),
        ("in.safetensors", "out", "weights end in"),
        ("there.bin", "out.pt", "weights end in"),
        ("in.safetensors", "there.pt/out.params", "is a file; choose another folder"),
    ]:
        assert words in refused(capsys, "convert", tmp_path / first, tmp_path / second, *force)
    assert sorted(tmp_path.iterdir()) == names
    assert there.read_bytes() == b"before"


@pytest.mark.skipif(getattr(os, "getuid", int)() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_refused(weights, tmp_path, capsys):
    save_weights(tmp_path / "in.safetensors", weights, {})
    (tmp_path / "locked").mkdir(mode=0o500)
    out = tmp_path / "locked" / "out.params"
    assert "no permission in" in refused(capsys, "convert", tmp_path / "in.safetensors", out)


def test_names_that_no_file_can_have_are_refused(weights, tmp_path, capsys):
    source = tmp_path / "in.safetensors"
    save_weights(source, weights, {})
    (tmp_path / "circle.params").symlink_to(tmp_path / "circle.params")
    long = tmp_path / ("x" * 300 + ".params")
    assert "cannot be used" in refused(capsys, "convert", source, long)
    assert "cannot be used" in refused(capsys, "convert", long, tmp_path / "out.params")
    circle = tmp_path / "circle.params"
    assert "circle.params" in refused(capsys, "convert", source, circle, "--force")


def test_a_failed_conversion_leaves_no_folder(weights, tmp_path, monkeypatch):
    save_weights(tmp_path / "in.safetensors", weights, {})
    (tmp_path / "there").mkdir()

    def fail(*arguments):
        raise UserError("no proof")

    monkeypatch.setattr(convert, "_prove", fail)
    for out in ("new/newer/out.params", "there/new/out.params"):
        with pytest.raises(UserError, match="no proof"):
            convert.convert(FRAMEWORKS, tmp_path / "in.safetensors", tmp_path / out, {})
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["in.safetensors", "there"]


def test_force_replaces_what_a_link_leads_to(weights, tmp_path):
    save_weights(tmp_path / "in.safetensors", weights, {})
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "real.params").write_bytes(b"before")
    link = tmp_path / "out.params"
    link.symlink_to(tmp_path / "elsewhere" / "real.params")
    convert.convert(FRAMEWORKS, tmp_path / "in.safetensors", link, {}, force=True)
    assert link.is_symlink()
    found = convert.read_stored(FRAMEWORKS, tmp_path / "elsewhere" / "real.params", {}).weights
    assert same(found, weights)


def test_rounding_is_noticed_once(loaded, weights, tmp_path, few_images, recwarn):
    arrays = {NAMES[name]: weight + 1e-12 for name, weight in weights.items()}
    write_params(
        tmp_path / "in.params", {name: a.astype(np.float64) + 1e-12 for name, a in arrays.items()}
    )
    convert.convert(FRAMEWORKS, tmp_path / "in.params", tmp_path / "out.safetensors", loaded)
    assert sum("rounded to float32" in str(warning.message) for warning in recwarn) == 1


def test_many_classes_are_cut(weights):
    names = [f"c{i}" for i in range(500)]
    stored = convert.Stored(Path("x.safetensors"), weights, {"classes": json.dumps(names)})
    with pytest.raises(UserError, match=r"c9 and 490 more; shapes has a, b, c$"):
        stored.check_data("shapes", ["a", "b", "c"])


def test_force_replaces_what_is_there(weights, tmp_path, few_images):
    save_weights(tmp_path / "in.safetensors", weights, {})
    (tmp_path / "out.params").write_bytes(b"before")
    convert.convert(
        FRAMEWORKS, tmp_path / "in.safetensors", tmp_path / "out.params", {}, force=True
    )
    assert same(convert.read_stored(FRAMEWORKS, tmp_path / "out.params", {}).weights, weights)


# --- Hostile files ---------------------------------------------------------------------------------------------------


class Touches:
    """A pickle of it creates a file where it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("how", ["pickle", "archive"])
def test_nothing_that_is_in_a_file_is_executed(loaded, weights, tmp_path, capsys, suffix, how):
    import torch

    path, touched = tmp_path / f"evil{suffix}", tmp_path / "touched"
    state = {name: torch.from_numpy(w) for name, w in weights.items()} | {"x": Touches(touched)}
    if how == "pickle":
        path.write_bytes(pickle.dumps(state))
    else:
        torch.save(state, path)
    target = ".params" if suffix != ".params" else ".safetensors"
    assert f"evil{suffix}" in refused(capsys, "convert", path, tmp_path / f"out{target}")
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    # The check itself: it would have been.
    if how == "pickle":
        pickle.loads(path.read_bytes())
    else:
        torch.load(path.rename(tmp_path / "evil"), weights_only=False)
    assert touched.exists()


def safetensors(header: dict | bytes, values: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + values


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "content",
    [
        safetensors({"a": ENTRY}, bytes(8), length=2**63),
        safetensors({"a": ENTRY}, bytes(8), length=2**40),
        safetensors({"a": ENTRY}),
        safetensors({"a": ENTRY}, bytes(800)),
        safetensors({"a": ENTRY | {"shape": [2**40]}}, bytes(8)),
        safetensors({"a": ENTRY | {"shape": [2**62, 2**62]}}, bytes(8)),
        safetensors({"a": ENTRY | {"shape": [2**40], "data_offsets": [0, 2**42]}}, bytes(8)),
        safetensors({"a": ENTRY | {"data_offsets": [8, 0]}}, bytes(8)),
        safetensors({"a": ENTRY, "b": ENTRY}, bytes(8)),
        safetensors({"a": ENTRY | {"dtype": "BF16", "shape": [4]}}, bytes(8)),
        safetensors(b"\xff" * 20),
        safetensors(b"[" * 5000),
    ],
)
def test_a_safetensors_file_with_a_lying_header_is_refused(tmp_path, capsys, content):
    path = tmp_path / "lying.safetensors"
    path.write_bytes(content)
    assert "lying.safetensors" in refused(capsys, "convert", path, tmp_path / "out.params")
    assert not (tmp_path / "out.params").exists()


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("content", [b"", b"a text file\n" * 50, bytes(5000)])
def test_files_of_nothing_and_renamed_ones_are_refused(loaded, tmp_path, capsys, suffix, content):
    path = tmp_path / f"suspect{suffix}"
    path.write_bytes(content)
    target = ".params" if suffix != ".params" else ".safetensors"
    assert f"suspect{suffix}" in refused(capsys, "convert", path, tmp_path / f"out{target}")
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_of_another_kind_s_content_is_refused(loaded, files, tmp_path, capsys, suffix):
    other = SUFFIXES[(SUFFIXES.index(suffix) + 2) % len(SUFFIXES)]
    path = tmp_path / f"renamed{suffix}"
    path.write_bytes(files[other].read_bytes())
    target = ".params" if suffix != ".params" else ".safetensors"
    assert f"renamed{suffix}" in refused(capsys, "convert", path, tmp_path / f"out{target}")


def test_a_file_that_is_larger_than_memory_is_refused(tmp_path, capsys, monkeypatch):
    def load(path: Path) -> Weights:
        raise MemoryError

    monkeypatch.setattr(convert, "load_params", load)
    (tmp_path / "huge.params").touch()
    err = refused(capsys, "convert", tmp_path / "huge.params", tmp_path / "out.safetensors")
    assert "huge.params holds more than fits into memory" in err


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("share", [0.0001, 0.3, 0.9999])
def test_a_truncated_file_of_any_kind_is_refused(loaded, files, tmp_path, suffix, share):
    path, content = tmp_path / f"cut{suffix}", files[suffix].read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UserError, match="cut") as error:
        convert.read_stored(FRAMEWORKS, path, loaded)
    assert "\n" not in str(error.value)


STATE_DICTS = {
    "one value, repeated without end": lambda torch: {"fc.bias": torch.ones(1).expand(2**50)},
    "sparse": lambda torch: {"fc.bias": torch.ones(3).to_sparse()},
    "complex": lambda torch: {"fc.bias": torch.ones(3, dtype=torch.complex64)},
    "without values": lambda torch: {"fc.bias": torch.ones(3, device="meta")},
    "no tensor": lambda torch: {"fc.bias": 3},
    "no dictionary": lambda torch: [torch.ones(3)],
    "names that are numbers": lambda torch: {3: torch.ones(3)},
}


@pytest.mark.parametrize("how", STATE_DICTS)
def test_a_state_dict_of_something_else_is_refused(loaded, tmp_path, how):
    import torch

    path = tmp_path / "odd.pt"
    torch.save(STATE_DICTS[how](torch), path)
    with pytest.raises(UserError, match=r"odd\.pt") as error:
        loaded["pytorch"].weights.load_file(path)
    assert "\n" not in str(error.value)


def rewritten(path: Path, target: Path, turn) -> Path:
    """Write an archive of PyTorch's anew with another pickle."""
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w") as archive:
        for name in source.namelist():
            content = source.read(name)
            archive.writestr(name, turn(content) if name.endswith("data.pkl") else content)
    return target


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (
            b"\x80\x02c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R.",
            r"holds __builtin__\.bytearray",
        ),
        (
            b"\x80\x04\x8c\x08builtins\x8c\x09bytearray\x93J\xff\xff\xff\x7f\x85R.",
            "more than tensors",
        ),
        (b"\x80\x02(i__builtin__\nbytearray\n.", "more than tensors"),
        (b"\x80\x02}" + b"N0" * 2**20 + b".", "more than a state dict"),
    ],
)
def test_a_small_file_takes_no_memory_that_it_does_not_have(
    loaded, tmp_path, monkeypatch, content, why
):
    import torch

    torch.save({}, tmp_path / "small")
    path = rewritten(tmp_path / "small", tmp_path / "small.pt", lambda _: content)

    def load(*arguments, **options):
        raise AssertionError("the file was loaded")

    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(UserError, match=rf"small\.pt .*{why}.*save net\.state_dict\(\) alone"):
        loaded["pytorch"].weights.load_file(path)


def test_a_state_dict_of_the_old_form_is_refused(loaded, weights, tmp_path):
    import torch

    state = {name: torch.from_numpy(weight) for name, weight in weights.items()}
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(UserError, match=r"old\.pt .*old PyTorch: load it there and save it anew"):
        loaded["pytorch"].weights.load_file(tmp_path / "old.pt")


def test_what_to_save_instead_is_said(loaded, tmp_path):
    import torch

    net, path = loaded["pytorch"].resnet.resnet18(3), tmp_path / "odd.pt"
    first = "conv.weight"
    for content, why in [
        ({"epoch": 3, "state_dict": net.state_dict()}, "epoch is no tensor of numbers, but int"),
        ({"state_dict": net.state_dict()}, r"save that alone, with .*checkpoint\['state_dict'\]"),
        (net, r"save net\.state_dict\(\) alone"),
        ({first: torch.ones(1).to(torch.float8_e4m3fn)}, r"torch.*, which is no tensor of numbers"),
        ({first: torch.ones(1, dtype=torch.complex64)}, r"torch\.ComplexFloatStorage"),
        ({first: torch.ones(1), 3: torch.ones(1)}, "the key 3 is no name"),
    ]:
        torch.save(content, path)
        with pytest.raises(UserError, match=why):
            loaded["pytorch"].weights.load_file(path)


def test_tensors_that_are_stored_negated_are_read(loaded, weights, tmp_path):
    import torch

    state = {name: torch.from_numpy(weight) for name, weight in weights.items()}
    state["fc.bias"] = torch.complex(torch.zeros(3), -state["fc.bias"]).conj().imag
    assert state["fc.bias"].is_neg()
    torch.save(state, tmp_path / "negated.pt")
    found = convert.read_stored(FRAMEWORKS, tmp_path / "negated.pt", loaded).weights
    assert same(found, weights)


def test_many_names_on_one_storage_are_counted_before_their_values_are_read(
    loaded, tmp_path, monkeypatch
):
    import h5py
    import torch

    one = torch.ones(1000, dtype=torch.float16)
    torch.save({"fc.bias": one, **{f"{i}": one for i in range(1000)}}, tmp_path / "many.pt")
    monkeypatch.setattr("backends.pytorch.weights.values", None)
    with pytest.raises(UserError, match="0 is not wanted"):
        loaded["pytorch"].weights.load_file(tmp_path / "many.pt")
    with h5py.File(tmp_path / "many.weights.h5", "w") as file:
        file["layers/dense/vars/1"] = np.ones(3, np.float32)
        file["more"] = np.ones(3, np.float32)
    monkeypatch.setattr("common.weights.keras.from_keras", None)
    with pytest.raises(UserError, match="more is not wanted"):
        loaded["tensorflow"].weights.load_file(tmp_path / "many.weights.h5")


def test_a_compressed_state_dict_is_refused(loaded, files, tmp_path):
    path = tmp_path / "bomb.pt"
    with (
        zipfile.ZipFile(files[".pt"]) as source,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
    with pytest.raises(UserError, match=r"bomb\.pt is compressed"):
        loaded["pytorch"].weights.load_file(path)


def write_small(path: Path) -> None:
    """Write two arrays as a file of its kind."""
    values = {"fc.bias": np.ones(3, np.float32), "other": np.ones((2, 2), np.float32)}
    if path.suffix == ".pt":
        import torch

        torch.save({name: torch.from_numpy(value) for name, value in values.items()}, path)
    elif path.suffix == ".h5":
        import h5py

        with h5py.File(path, "w") as file:
            for name, value in values.items():
                file[f"layers/{name}"] = value
        add_metadata(path, METADATA)
    else:
        save_file(values, path)


# The same flips each time: what reads these files is not this project's.
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, derandomize=True
)
@given(
    flips=st.lists(st.tuples(st.integers(0, 7000), st.integers(1, 255)), min_size=1, max_size=4),
    suffix=st.sampled_from([".pt", ".safetensors", ".weights.h5"]),
)
def test_flipped_bits_raise_nothing_but_a_user_error(loaded, tmp_path, flips, suffix):
    path = tmp_path / f"flipped{suffix}"
    write_small(path)
    content = bytearray(path.read_bytes())
    for place, bits in flips:
        content[place % len(content)] ^= bits
    path.write_bytes(content)
    with pytest.raises(UserError, match="flipped"):  # the network needs 108 arrays more
        convert.read_stored(FRAMEWORKS, path, loaded)


def spoil_h5(path: Path, how: str, elsewhere: Path) -> None:
    import h5py

    with h5py.File(path, "r+") as file:
        group, kernel = file["layers/dense/vars"], file["layers/dense/vars/0"][()]
        del group["0"]
        if how == "external link":
            with h5py.File(elsewhere, "w") as other:
                other["kernel"] = kernel
            group["0"] = h5py.ExternalLink(elsewhere, "/kernel")
        elif how == "soft link":
            file["kernel"] = kernel
            group["0"] = h5py.SoftLink("/kernel")
        elif how == "external storage":
            elsewhere.write_bytes(kernel.tobytes())
            places = [(elsewhere, 0, kernel.nbytes)]
            group.create_dataset("0", kernel.shape, kernel.dtype, external=places)
        elif how == "virtual":
            with h5py.File(elsewhere, "w") as other:
                source = h5py.VirtualSource(other.create_dataset("kernel", data=kernel))
            layout = h5py.VirtualLayout(kernel.shape, kernel.dtype)
            layout[:] = source
            group.create_virtual_dataset("0", layout)
        elif how == "absurd shape":
            group.create_dataset("0", (512, 2**50), np.float32)
        elif how == "absurd shape in chunks":
            group.create_dataset("0", (512, 2**50), np.float32, chunks=(1, 1024))
        elif how == "compressed":
            group.create_dataset("0", data=kernel, compression="gzip")
        elif how == "text":
            group["0"] = "no numbers"
        elif how == "objects":
            group.create_dataset("0", (3,), h5py.vlen_dtype(np.float32))
        elif how == "circle":
            group["0"] = kernel
            group["again"] = file["layers"]
        elif how == "twice":
            group["0"] = kernel
            group["2"] = group["0"]
        elif how == "deep":
            file.create_group("a/" * 40)
        elif how == "type":
            group["0"] = np.dtype("f4")
        elif how == "mistaken":
            group["0"] = kernel
            file["fc.bias"] = np.ones(3, np.float32)
        elif how == "metadata":
            group["0"] = kernel
            file.attrs["metadata"] = [1, 2]


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("external link", "link to another place"),
        ("soft link", "link to another place"),
        ("external storage", "in another file"),
        ("virtual", "in another file"),
        ("absurd shape", "more values than the file has"),
        ("absurd shape in chunks", "more values than the file has"),
        ("compressed", "compressed"),
        ("text", "no numbers"),
        ("objects", "no numbers"),
        ("circle", "is there twice"),
        ("twice", "is there twice"),
        ("deep", "deeper than"),
        ("type", "neither a group nor an array"),
        ("mistaken", r"fc\.bias and layers/dense/vars/1, which both stand for fc\.bias"),
        ("metadata", "damaged"),
    ],
)
def test_an_h5_file_that_reaches_out_or_lies_is_refused(loaded, files, tmp_path, how, why):
    path, elsewhere = tmp_path / "odd.weights.h5", tmp_path / "elsewhere"
    path.write_bytes(files[".weights.h5"].read_bytes())
    spoil_h5(path, how, elsewhere)
    for read in (loaded["tensorflow"].weights.load_file, loaded["tensorflow"].weights.load_net):
        with pytest.raises(UserError, match=why) as error:
            read(path)
        assert "odd.weights.h5" in str(error.value)
        assert "\n" not in str(error.value)


def test_arrays_of_an_h5_file_that_share_their_values_are_refused(loaded, tmp_path):
    import h5py

    path, values = tmp_path / "shared.weights.h5", np.ones(10_000, np.float32)
    with h5py.File(path, "w") as file:
        file["first"] = values
        for i in range(50):
            file.create_dataset(f"other{i}", values.shape, values.dtype)  # without a place
        file.flush()
        place = struct.pack("<Q", file["first"].id.get_offset())
    size = struct.pack("<Q", values.nbytes)
    content = path.read_bytes()
    assert content.count(b"\xff" * 8 + size) == 50
    path.write_bytes(content.replace(b"\xff" * 8 + size, place + size))
    with h5py.File(path) as file:
        assert all((file[f"other{i}"][()] == values).all() for i in range(50))
    with pytest.raises(UserError, match="claims more values than the file has"):
        loaded["tensorflow"].weights.load_file(path)


def test_values_that_no_network_computes_with_are_not_converted(weights, tmp_path, capsys):
    save_weights(
        tmp_path / "in.safetensors", weights | {"fc.bias": np.full(3, np.nan, np.float32)}, {}
    )
    err = refused(capsys, "convert", tmp_path / "in.safetensors", tmp_path / "out.params")
    assert "fc.bias" in err
