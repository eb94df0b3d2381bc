"""PyTorch's files of weights: which state dicts are read, and what is said of others."""

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


def test_what_is_no_state_dict_is_refused_and_what_to_save_is_said(loaded, tmp_path):
    import torch

    net, path = loaded["pytorch"].resnet.resnet18(3), tmp_path / "odd.pt"
    ones = torch.ones(3)
    for content, why in [
        ({"fc.bias": torch.ones(1).expand(2**50)}, r"fc\.bias is no tensor of numbers"),
        ({"fc.bias": ones.to_sparse()}, ""),
        ({"fc.bias": ones.to(torch.complex64)}, r"torch\.ComplexFloatStorage"),
        ({"fc.bias": ones.to(torch.float8_e4m3fn)}, r"torch.*, which is no tensor of numbers"),
        ({"fc.bias": torch.ones(3, device="meta")}, ""),
        ({"fc.bias": 3}, "fc.bias is no tensor of numbers, but int"),
        ({"fc.bias": ones, 3: ones}, "the key 3 is no name"),
        ([ones], ""),
        ({"epoch": 3, "state_dict": net.state_dict()}, "epoch is no tensor of numbers, but int"),
        ({"state_dict": net.state_dict()}, r"save that alone, with .*checkpoint\['state_dict'\]"),
        (net, r"save net\.state_dict\(\) alone"),
    ]:
        torch.save(content, path)
        with pytest.raises(UserError, match=rf"odd\.pt.*{why}") as error:
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
