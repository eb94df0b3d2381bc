"""`CallRecorder` records which functions of the contract the checks call, and the values of each dimension."""

from dataclasses import fields, replace

import numpy as np
import pytest
from conftest import random_dataset
from numpy_backend import numpy_backend

from common.augmentation.operations import gallery
from common.interface import Backend
from common.parity.adapter import Adapter
from common.parity.coverage import FILES, CallRecorder, contract
from common.parity.results import BackendResults, by_dimension
from common.parity.suite import QUICK, run_checks
from common.parity.table import coverage_table
from common.reference import ALIGNED
from common.system.console import PlainConsole

NARROW = replace(QUICK, num_channels=8)
TWO_GPUS = ("devices", "return 0", "return 2")  # an edit of the NumPy tab: it reports two GPUs


def test_the_contract_is_every_function_of_the_files_that_one_process_calls():
    others = ("framework", "processes")  # a record, and what only several processes call
    assert list(FILES) == [f.name for f in fields(Backend) if f.name not in others]
    found = set(contract())
    assert {"devices.try_gpu", "trainer.train_ch13", "kaggle.train", "trainer.get_state"} <= found
    for file, name in (function.split(".") for function in found):
        assert callable(getattr(getattr(numpy_backend(), file), name))
    assert not any(name.startswith(("resnet.Residual", "probes.CONVENTIONS")) for name in found)


# Functions that no check calls by name, and why. Calls between a tab's own functions do not count.
NOT_CALLED: dict[str, str] = {}


@pytest.fixture(scope="module")
def noted() -> CallRecorder:
    """The record of the quick checks on the NumPy backend, which reports two GPUs and computes on the second."""
    recorder = CallRecorder(numpy_backend(ALIGNED, TWO_GPUS))
    checks = run_checks(recorder.backend, NARROW, device="gpu:1")
    assert [result.sentence() for result in checks if not result.passed] == []
    return recorder


def test_every_function_of_the_contract_is_called_by_a_quick_check_or_has_a_reason(noted):
    missing = [name for name in contract() if name not in noted.called]
    assert missing == list(NOT_CALLED), f"no check calls {', '.join(missing) or 'fewer'}"


def test_every_check_computes_on_the_requested_device(noted):
    assert noted.covered()["devices"] == ["gpu:1"]


def test_the_first_of_several_devices_computes():
    assert Adapter(numpy_backend(ALIGNED, TWO_GPUS), "float32", device="gpu").devices == ["gpu(0)"]


def test_recording_a_call_does_not_change_its_result(rng):
    backend = numpy_backend()
    recorder = CallRecorder(backend)
    watched = recorder.backend
    assert watched.probes.CONVENTIONS is backend.probes.CONVENTIONS
    assert watched.trainer.predict is watched.trainer.predict
    net = watched.resnet.resnet18(3, num_channels=8)
    X = rng.random((5, 3, 8, 12), np.float32)
    np.testing.assert_array_equal(
        watched.trainer.predict(net, X, True), backend.trainer.predict(net, X, True)
    )
    assert recorder.called == {"resnet.resnet18", "trainer.predict"}
    assert recorder.covered() == {
        "batch sizes, network": ["5"],
        "channels of images, network": ["3"],
        "channels of the first stage": ["8"],
        "classes": ["3"],
        "image sizes, network": ["8 x 12"],
        "modes": ["training"],
    }


def test_the_batches_of_a_loader_are_recorded():
    backend = numpy_backend()
    recorder = CallRecorder(backend)
    data, augs = random_dataset(20, size=9), gallery((5, 5))["flip, jitter and crop"]
    found = recorder.backend.loaders.load_batched(data, augs, 8, True, 3)
    true = backend.loaders.load_batched(data, augs, 8, True, 3)
    assert len(found) == len(true)
    for _ in range(2):
        for got, expected in zip(found, true, strict=True):
            np.testing.assert_array_equal(got[0], expected[0])
    covered = recorder.covered()
    assert covered["batch sizes, loaders"] == ["4", "8"]
    assert covered["epochs of a loader"] == ["1", "2"]
    assert covered["image sizes, loaders"] == ["9 x 9"]
    assert covered["pipelines"] == ["batched"]
    assert covered["augmentations"] == ["ColorJitter", "RandomFlipLeftRight", "RandomResizedCrop"]


def test_a_call_with_arguments_outside_the_contract_is_an_error():
    with pytest.raises(TypeError, match="unexpected keyword"):
        CallRecorder(numpy_backend()).backend.trainer.accuracy(1, 2, weights=3)


def test_coverage_has_one_row_per_dimension_if_backends_agree():
    results = [
        BackendResults(name, {}, {}, (), (), covered=covered)
        for name, covered in {
            "one": {"workers": ["0", "2"], "classes": ["1", "10"]},
            "two": {"workers": ["0"], "classes": ["1", "10"], "modes": ["training"]},
            "ended early": {},
        }.items()
    ]
    rows = [
        ("workers (one)", "0, 2"),
        ("workers (two)", "0"),
        ("classes", "1, 10"),
        ("modes (one)", "none"),
        ("modes (two)", "training"),
    ]
    assert by_dimension(results) == rows
    console = PlainConsole()
    with console.capture() as captured:
        console.print(coverage_table(console, results))
    lines = [" ".join(line.split()) for line in captured.get().splitlines()]
    assert lines == ["covered by these checks", "dimension values", *map(" ".join, rows)]
