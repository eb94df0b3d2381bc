"""Gluon's weights files: names by position, numbered names, graphs of `export`, and old checkpoints."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import load_or_skip

from common.commands.convert import convert
from common.errors import UserError
from common.interface import Backend
from common.weights.canonical import Weights, initial_weights, is_buffer, network_sizes
from common.weights.files import read_stored
from common.weights.gluon import NAMES, load_params, save_params
from common.weights.params import write_params


@pytest.fixture(scope="module")
def tab() -> Backend:
    return load_or_skip("mxnet")


def same(found: Weights, wanted: Weights) -> bool:
    return list(found) == list(wanted) and all(
        found[name].tobytes() == wanted[name].tobytes() for name in wanted
    )


# --- Names -----------------------------------------------------------------------------------------------------------


def test_weights_are_written_and_read_back_without_mxnet(tmp_path):
    weights = initial_weights(3, in_channels=1, seed=2, num_channels=8)
    save_params(tmp_path / "net.params", weights)
    assert same(load_params(tmp_path / "net.params"), weights)


def test_numbered_names_are_mapped_by_the_order_of_their_numbers(tmp_path):
    weights = initial_weights(2, seed=3, num_channels=8)
    write_params(tmp_path / "counted.params", counted(weights))
    assert same(load_params(tmp_path / "counted.params"), weights)


def test_two_names_for_one_weight_are_refused_by_both_names(tmp_path):
    weights, path = initial_weights(2, num_channels=8), tmp_path / "net.params"
    by_position = {NAMES[name]: weight for name, weight in weights.items()}
    write_params(path, by_position | {"conv.bias": weights["conv.bias"] + 1})
    with pytest.raises(UserError, match=r"net\.params has 0\.bias and conv\.bias, which are both"):
        load_params(path)
    write_params(path, counted(weights) | {"net0_conv7_bias": weights["conv.bias"] + 1})
    with pytest.raises(UserError, match=r"arg:net0_conv7_bias and net0_conv7_bias, which are both"):
        load_params(path)


def test_numbered_names_with_two_prefixes_are_refused(tmp_path):
    weights, path = counted(initial_weights(2, num_channels=8)), tmp_path / "two.params"
    other = {name.replace("net0", "net1"): weight for name, weight in weights.items()}
    for stray in (other, {"arg:other_conv7_weight": weights["arg:net0_conv7_weight"]}):
        write_params(path, weights | stray)
        with pytest.raises(UserError, match=r"two\.params: .*net0_.* and .* different prefixes"):
            load_params(path)


def test_another_network_is_refused_before_its_values_are_read(tmp_path, monkeypatch):
    def taken(*arguments):
        raise AssertionError("values were read")

    weights = initial_weights(2, num_channels=8) | {"more": np.ones((3, 3), np.float32)}
    path = tmp_path / "other.params"
    write_params(path, {"0.weight": weights["conv.weight"], "other": weights["more"]})
    monkeypatch.setattr(np, "fromfile", taken)
    with pytest.raises(UserError, match="other is not expected"):
        load_params(path)


def counted(weights: Weights) -> Weights:
    """Return the weights with names like those of Gluon's `export`, sorted by name."""
    first = {"conv": 7, "bn": 20, "fc": 1}  # layers that the process has made before
    words = {"conv": "conv", "bn": "batchnorm", "fc": "dense"}
    scale = {"weight": "gamma", "bias": "beta"}
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name in weights))
    named = {}
    for name, weight in weights.items():
        layer, _, value = name.rpartition(".")
        kind = next(kind for kind in first if kind in layer.rpartition(".")[2])
        alike = [other for other in layers if kind in other.rpartition(".")[2]]
        value = scale.get(value, value) if kind == "bn" else value
        prefix = "aux" if value.startswith("running") else "arg"
        number = first[kind] + alike.index(layer)
        named[f"{prefix}:net0_{words[kind]}{number}_{value}"] = weight
    return dict(sorted(named.items()))


# --- Graphs of export ------------------------------------------------------------------------------------------------


def exported(mxnet: Backend, weights: Weights, folder: Path, numpy_interface: bool) -> Path:
    """Export an MXNet network with these weights, and return the weights file."""
    import mxnet as mx
    from mxnet.util import np_array, np_shape

    save_params(folder / "book.params", weights)
    with np_array(numpy_interface), np_shape(numpy_interface):
        net = book_s_net(3, 8)
        net.load_parameters(str(folder / "book.params"))
        net.hybridize()
        X = np.ones((1, 3, 32, 32), np.float32)
        net(mx.np.array(X) if numpy_interface else mx.nd.array(X))
        net.export(str(folder / "net"))
    return folder / "net-0000.params"


@pytest.mark.parametrize("numpy_interface", [True, False])
def test_an_exported_network_is_checked_with_its_graph(
    loaded, weights, tmp_path, capsys, monkeypatch, numpy_interface
):
    path = exported(loaded["mxnet"], weights, tmp_path, numpy_interface)
    convert(path, tmp_path / "out.pt", loaded)
    out = capsys.readouterr().out
    assert "mxnet, then pytorch" in out
    assert "not proven" not in out
    assert same(read_stored(tmp_path / "out.pt", loaded).weights, weights)

    swap_batch_norms(monkeypatch)
    with pytest.raises(UserError, match="differ too much"):
        convert(path, tmp_path / "wrong.pt", loaded)
    (tmp_path / "net-symbol.json").unlink()
    convert(path, tmp_path / "wrong.pt", loaded)
    assert f"not proven by MXNet: which layer each name in {path}" in capsys.readouterr().out


def swap_batch_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Swap bn1 and bn2 where numbered names are mapped to layers."""
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
def test_a_wrong_graph_is_refused(loaded, weights, tmp_path, spoil):
    path = exported(loaded["mxnet"], weights, tmp_path, numpy_interface=True)
    graph = json.loads((tmp_path / "net-symbol.json").read_text())
    spoil(graph)
    (tmp_path / "net-symbol.json").write_text(json.dumps(graph))
    with pytest.raises(UserError, match=r"net-symbol\.json") as error:
        convert(path, tmp_path / "out.pt", loaded)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out.pt").exists()


def test_an_exported_file_is_converted_for_load_parameters(loaded, weights, tmp_path):
    write_params(tmp_path / "old-0000.params", counted(weights))
    convert(tmp_path / "old-0000.params", tmp_path / "new.params", loaded)
    net = loaded["mxnet"].resnet.resnet18(*network_sizes(weights))
    net.load_parameters(str(tmp_path / "new.params"))
    assert same(loaded["mxnet"].weights.get_weights(net), weights)


# --- Old checkpoints -------------------------------------------------------------------------------------------------


def book_s_net(num_classes=10, num_channels=64):
    """Return the book's network as in old checkpoints: layers without input channels."""
    from mxnet import npx
    from mxnet.gluon import nn

    class Residual(nn.HybridBlock):
        def __init__(self, num_channels, use_1x1conv=False, strides=1):
            super().__init__()
            self.conv1 = nn.Conv2D(num_channels, kernel_size=3, padding=1, strides=strides)
            self.conv2 = nn.Conv2D(num_channels, kernel_size=3, padding=1)
            self.conv3 = None
            if use_1x1conv:
                self.conv3 = nn.Conv2D(num_channels, kernel_size=1, strides=strides)
            self.bn1, self.bn2 = nn.BatchNorm(), nn.BatchNorm()

        def hybrid_forward(self, F, X):
            relu = F.npx.relu if npx.is_np_array() else F.relu
            Y = self.bn2(self.conv2(relu(self.bn1(self.conv1(X)))))
            return relu(Y + (self.conv3(X) if self.conv3 else X))

    net = nn.HybridSequential()
    net.add(
        nn.Conv2D(num_channels, kernel_size=3, padding=1), nn.BatchNorm(), nn.Activation("relu")
    )
    for i in range(4):
        channels = num_channels * 2**i
        stage = nn.HybridSequential()
        stage.add(Residual(channels, i > 0, 2 if i else 1), Residual(channels))
        net.add(stage)
    net.add(nn.GlobalAvgPool2D(), nn.Dense(num_classes))
    return net


def trained_a_little(net, X):
    """Train a network for two steps, so that weights and buffers change, and return its logits."""
    import mxnet as mx

    net.initialize(mx.init.Xavier())
    trainer = mx.gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.01})
    for _ in range(2):
        with mx.autograd.record():
            loss = (net(X) ** 2).sum()
        loss.backward()
        trainer.step(len(X))
    return net(X).asnumpy()


def save(net, path: Path, how: str) -> Path:
    if how == "save_parameters":
        net.save_parameters(str(path))
    elif how == "save_params":
        net.collect_params().save(str(path))
    else:
        net.export(str(path))
        path = path.with_name(f"{path.name}-0000.params")
    return path


@pytest.mark.parametrize(
    ("how", "numpy_interface"),
    [
        ("save_parameters", True),
        ("export", True),
        ("save_parameters", False),
        ("export", False),
        ("save_params", False),  # the new interface has none
    ],
)
def test_a_checkpoint_of_the_book_s_network_gives_its_logits(
    tab, rng, tmp_path, how, numpy_interface
):
    import mxnet as mx
    from mxnet.util import np_array, np_shape

    images = rng.random((4, 3, 16, 16), np.float32)
    with np_array(numpy_interface), np_shape(numpy_interface):
        X = mx.np.array(images) if numpy_interface else mx.nd.array(images)
        net = book_s_net(num_channels=8)
        net.hybridize()  # required for export
        expected = trained_a_little(net, X)
        path = save(net, tmp_path / "old", how)
    mine = tab.resnet.resnet18(10, num_channels=8)
    weights = tab.weights.load_file(path)
    tab.weights.set_weights(mine, weights)
    assert all(weights[name].std() > 0 for name in weights if is_buffer(name))
    result = tab.trainer.predict(mine, mx.np.array(images)).asnumpy()
    np.testing.assert_allclose(result, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("numpy_interface", [True, False])
def test_the_book_s_network_loads_what_save_file_wrote(tab, rng, tmp_path, numpy_interface):
    import mxnet as mx
    from mxnet.util import np_array, np_shape

    mine, path = tab.resnet.resnet18(10, num_channels=8), tmp_path / "new.params"
    images = rng.random((4, 3, 16, 16), np.float32)
    trained_a_little(mine, mx.np.array(images))
    expected = tab.trainer.predict(mine, mx.np.array(images)).asnumpy()
    tab.weights.save_file(path, tab.weights.get_weights(mine))
    with np_array(numpy_interface), np_shape(numpy_interface):
        net = book_s_net(num_channels=8)
        net.load_parameters(str(path))
        result = net(mx.np.array(images) if numpy_interface else mx.nd.array(images)).asnumpy()
    np.testing.assert_allclose(result, expected, atol=1e-5 * np.abs(expected).max())


def test_a_file_of_arrays_without_names_is_refused(tab, tmp_path):
    import mxnet as mx

    path = tmp_path / "list.params"
    mx.npx.save(str(path), [mx.np.ones(3)])
    with pytest.raises(UserError, match=r"list\.params has arrays without names"):
        tab.weights.load_file(path)
