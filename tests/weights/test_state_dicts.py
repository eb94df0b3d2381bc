"""PyTorch's weights files: state dicts that are read, and the errors for others."""

import zipfile
from pathlib import Path

import pytest

from common.errors import UserError


def test_a_state_dict_of_a_compiled_network_is_read(loaded, weights, tmp_path):
    import torch

    tab, path = loaded["pytorch"].weights, tmp_path / "compiled.pt"
    torch.save({f"_orig_mod.{name}": torch.from_numpy(w) for name, w in weights.items()}, path)
    for found in (tab.load_file(path), tab.get_weights(tab.load_net(path))):
        assert list(found) == list(weights)
        assert all((found[name] == weight).all() for name, weight in weights.items())


@pytest.mark.parametrize("odd", [["module.fc.bias"], ["net.fc.weight", "_orig_mod.fc.bias"]])
def test_a_wrapper_s_prefix_on_some_names_only_is_refused(loaded, weights, tmp_path, odd):
    import torch

    path = tmp_path / "mixed.pt"
    state = {name: torch.from_numpy(weight) for name, weight in weights.items()}
    for name in odd:
        state[name] = state.pop(name.partition(".")[2])
    torch.save(state, path)
    with pytest.raises(UserError, match=rf"mixed\.pt(.|\n)*{odd[-1]} is not expected"):
        loaded["pytorch"].weights.load_file(path)


def test_two_names_of_one_weight_are_refused(loaded, weights, tmp_path):
    """Otherwise the last would overwrite the first."""
    import torch

    path = tmp_path / "two.pt"
    state = {f"_orig_mod.{name}": torch.from_numpy(w) for name, w in weights.items()}
    torch.save(state | {"module.fc.bias": torch.ones(3)}, path)
    with pytest.raises(UserError, match=r"two\.pt does not hold the weights"):
        loaded["pytorch"].weights.load_file(path)


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_a_state_dict_in_another_floating_type_is_read_as_the_rounded_weights(
    loaded, weights, tmp_path, dtype
):
    import torch

    tab, path, dtype = loaded["pytorch"].weights, tmp_path / "other.pt", getattr(torch, dtype)
    net = loaded["pytorch"].resnet.resnet18(3, num_channels=8)
    tab.set_weights(net, weights)
    torch.save(net.to(dtype).state_dict(), path)
    assert torch.load(path)["fc.bias"].dtype == dtype
    for found in (tab.load_file(path), tab.get_weights(tab.load_net(path))):
        assert list(found) == list(weights)
        for name, weight in weights.items():
            assert found[name].dtype == weight.dtype
            rounded = torch.from_numpy(weight).to(dtype).float().numpy()
            assert (found[name] == rounded).all(), name


def test_a_saved_file_is_a_complete_state_dict_and_loads_strictly(loaded, weights, tmp_path):
    """Compares the names too, because a plain dict loads strictly without BatchNorm's batch counters."""
    import torch

    tab, path = loaded["pytorch"].weights, tmp_path / "saved.pt"
    tab.save_file(path, weights)
    net = loaded["pytorch"].resnet.resnet18(3, num_channels=8)
    saved, own = torch.load(path, weights_only=True), net.state_dict()
    assert saved.keys() == own.keys()
    for name, tensor in own.items():
        assert (saved[name].shape, saved[name].dtype) == (tensor.shape, tensor.dtype), name
    net.load_state_dict(saved, strict=True)
    found = tab.get_weights(net)
    assert all((found[name] == weight).all() for name, weight in weights.items())


@pytest.mark.parametrize("behind", [False, True], ids=["only", "after_good_tensors"])
def test_a_file_without_a_state_dict_is_refused_and_the_error_says_what_to_save(
    loaded, weights, tmp_path, behind
):
    import torch

    net, path = loaded["pytorch"].resnet.resnet18(3, num_channels=8), tmp_path / "odd.pt"
    ones = torch.ones(3)
    good = {name: torch.from_numpy(weight) for name, weight in weights.items()}
    for content, why in [
        ({"fc.bias": torch.ones(1).expand(2**50)}, r"fc\.bias is not a tensor of numbers"),
        ({"fc.bias": torch.ones(1).expand(3)}, r"fc\.bias is not a tensor of numbers"),
        ({"fc.bias": ones.to_sparse()}, ""),
        ({"fc.bias": ones.to(torch.complex64)}, r"torch\.ComplexFloatStorage"),
        ({"fc.bias": ones.to(torch.float8_e4m3fn)}, r"torch.*, which is not a tensor of numbers"),
        ({"fc.bias": torch.ones(3, device="meta")}, ""),
        ({"fc.bias": 3}, "fc.bias is not a tensor of numbers, but int"),
        ({"fc.bias": ones, 3: ones}, "key 3 is not a name"),
        ([ones], ""),
        ({"epoch": 3, "state_dict": net.state_dict()}, "epoch is not a tensor of numbers, but int"),
        ({"state_dict": net.state_dict()}, r"save only that, with .*checkpoint\['state_dict'\]"),
        (net, r"save only net\.state_dict\(\)"),
    ]:
        if behind and not isinstance(content, dict):
            continue
        torch.save(good | content if behind else content, path)
        with pytest.raises(UserError, match=rf"odd\.pt.*{why}") as error:
            loaded["pytorch"].weights.load_file(path)
        assert "\n" not in str(error.value)


def rewritten(path: Path, target: Path, turn) -> Path:
    """Write a copy of a PyTorch archive with another pickle."""
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
def test_a_small_file_cannot_allocate_much_memory(loaded, tmp_path, monkeypatch, content, why):
    import torch

    torch.save({}, tmp_path / "small")
    path = rewritten(tmp_path / "small", tmp_path / "small.pt", lambda _: content)

    def load(*arguments, **options):
        raise AssertionError("the file was loaded")

    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(UserError, match=rf"small\.pt .*{why}.*save only net\.state_dict\(\)"):
        loaded["pytorch"].weights.load_file(path)


def test_a_state_dict_in_the_old_format_is_refused(loaded, weights, tmp_path):
    import torch

    state = {name: torch.from_numpy(weight) for name, weight in weights.items()}
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(UserError, match=r"old\.pt .*old PyTorch: load it there and save it again"):
        loaded["pytorch"].weights.load_file(tmp_path / "old.pt")


def test_tensors_that_are_stored_negated_are_read(loaded, weights, tmp_path):
    import torch

    state = {name: torch.from_numpy(weight) for name, weight in weights.items()}
    state["fc.bias"] = torch.complex(torch.zeros(3), -state["fc.bias"]).conj().imag
    assert state["fc.bias"].is_neg()
    torch.save(state, tmp_path / "negated.pt")
    found = loaded["pytorch"].weights.load_file(tmp_path / "negated.pt")
    assert found["fc.bias"].tolist() == weights["fc.bias"].tolist()


def test_a_compressed_state_dict_is_refused(loaded, tmp_path):
    import torch

    path = tmp_path / "bomb.pt"
    torch.save({"fc.bias": torch.zeros(10_000)}, tmp_path / "plain.pt")
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as source,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
    with pytest.raises(UserError, match=r"bomb\.pt is compressed"):
        loaded["pytorch"].weights.load_file(path)
