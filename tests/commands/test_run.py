"""`run.py` as a user runs it: real files, real signals, and a new process where necessary."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from conftest import bright_dataset, filled_weights, load_or_skip, write_folder
from PIL import Image

import backends
import run
from common.augmentation.operations import RandomFlipLeftRight, gallery
from common.datasets import Data, Dataset
from common.datasets.folder import load_folder
from common.weights.canonical import LAST_LAYER, initial_weights, is_buffer, weight_shapes
from common.weights.safetensors import load_weights, save_weights

ROOT = Path(__file__).parents[2]
SMALL = ["--image-size", "8", "--batch-size", "8", "--epochs", "2"]
# A proxy that does not exist, so that there is no network on any machine.
OFFLINE = {f"{scheme}_proxy": "http://127.0.0.1:9" for scheme in ("http", "https", "all")}


@pytest.fixture(params=list(backends.FRAMEWORKS), scope="session")
def name(request: pytest.FixtureRequest) -> str:
    """The name of each backend."""
    load_or_skip(request.param)
    return request.param


def start(*arguments: object, cwd: Path = ROOT, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "run.py"), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env=os.environ | env,
        # SIGINT is ignored if the tests run in the background, and Python would keep it ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def finish(process: subprocess.Popen[str], timeout: float = 120) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, out, err


def metrics(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if "second" not in k} for line in lines]


# --- The main job ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def trained(name, small_folder, tmp_path_factory) -> tuple[Path, str]:
    """One finished run on the small folder: its run folder and its output."""
    folder = tmp_path_factory.mktemp("run") / "new"
    options = ["--data", small_folder, *SMALL, "--output", folder]
    words = ["--backend", name, *options, "--cache-dir", folder.parent / "data"]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert run.main([str(word) for word in words]) == 0
    return folder, out.getvalue()


def test_a_run_prints_its_settings_then_the_epochs_then_the_results(trained, name):
    folder, out = trained
    lines = out.splitlines()
    block = dict(
        line.split(maxsplit=1) for line in lines[: lines.index(f"drew 9 sheets into {folder}")]
    )
    assert block["backend"].startswith(name)
    assert block["data"].endswith("40 training images, 20 test images, 8 x 8, 2 classes")
    assert {"preset", "device", "precision", "seed", "training"} <= block.keys()
    assert block["output"] == str(folder)
    assert [line for line in lines if line.startswith("epoch 1/2 ")]
    assert [line for line in lines if line.startswith("epoch 2/2 ")]
    (ended,) = [i for i, line in enumerate(lines) if line.startswith("loss ")]
    assert "examples/sec on [" in lines[ended + 1]
    assert "wall clock" in lines[ended + 2]
    by_class, (mistakes, best, end) = lines[ended + 3 : -3], lines[-3:]
    summary = json.loads((folder / "summary.json").read_text())
    assert by_class == [
        f"  {name:6}  test acc {accuracy:.3f}  {round(10 * accuracy)} of 10"
        for name, accuracy in summary["per_class"].items()
    ]
    wrong = round(20 * (1 - summary["accuracy"]))
    assert ("no mistake on 20 test images" in mistakes) == (wrong == 0)
    assert (folder / "mistakes.png").exists() == (wrong > 0)
    accuracies = [line["test_acc"] for line in metrics(folder)]
    epoch = 1 + accuracies.index(max(accuracies))
    assert best.startswith(f"best epoch {epoch}, test acc {max(accuracies):.3f}, in best.safeten")
    assert end == f"results in {folder}"


def test_a_run_folder_has_config_metrics_pictures_and_weights(trained, name, small_folder):
    folder, _ = trained
    config = json.loads((folder / "config.json").read_text())
    assert config["config"]["backend"] == name
    assert config["classes"] == ["bright", "dark"]
    assert config["versions"].keys() >= {"python", "numpy", *backends.FRAMEWORKS[name].packages}
    assert config["hardware"].keys() == {"system", "processor", "cores", "memory"}
    epochs = metrics(folder)
    assert [epoch["epoch"] for epoch in epochs] == [1, 2]
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["test_acc"] == epochs[-1]["test_acc"]
    weights, metadata = load_weights(folder / "weights.safetensors")
    assert {n: w.shape for n, w in weights.items()} == weight_shapes(2)
    data = load_folder(small_folder, folder.parent / "data" / "cache", image_size=8)
    assert metadata == {
        "backend": name,
        "classes": '["bright", "dark"]',
        "data": small_folder.name,
        "image_size": "8",
        "train_files": data.train_files,
    }
    pictures = sorted(folder.glob("*.png"))
    names = {picture.name for picture in pictures if not picture.name.startswith("augment-")}
    others = {"augmented-images.png", "confusion.png", "curves.png", "training-images.png"}
    assert names - {"mistakes.png"} == others
    assert len(pictures) == 7 + len(names)  # seven augmentations
    for picture in pictures:
        assert np.asarray(Image.open(picture).convert("RGB")).std() > 10, picture
    assert not list(folder.glob(".*"))


def test_the_saved_weights_give_the_printed_test_accuracy(trained, name, small_folder):
    backend, (folder, _) = backends.load(name), trained
    weights, _ = load_weights(folder / "weights.safetensors")
    data = load_folder(small_folder, folder.parent / "data" / "cache", image_size=8)
    net = backend.resnet.resnet18(2)
    backend.weights.set_weights(net, weights)
    test_iter = backend.loaders.load_batched(data.test, (), 8, False)
    accuracy = backend.trainer.evaluate_accuracy_gpu(net, test_iter)
    assert accuracy == metrics(folder)[-1]["test_acc"]


@pytest.mark.parametrize(
    "options", [[], ["--batch-size", "7", "--pipeline", "native", "--workers", "0"]]
)
def test_evaluate_gives_the_test_accuracy_of_the_run(
    command, trained, small_folder, tmp_path, options
):
    file, folder = trained[0] / "weights.safetensors", tmp_path / "out"
    code, out, err = command(
        "--weights", file, "--data", small_folder, "--image-size", 8, "--output", folder, *options,
        command="evaluate",
    )  # fmt: skip
    assert code == 0, err
    accuracy = metrics(trained[0])[-1]["test_acc"]
    assert f"test acc {accuracy:.3f} on 20 images" in out
    assert f" weights  {file}\n" in out
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["test_acc"] == accuracy
    assert summary["examples"] == 20
    config = json.loads((folder / "config.json").read_text())
    assert (config["command"], config["config"]["weights"]) == ("evaluate", str(file))
    assert summary["per_class"].keys() == {"bright", "dark"}
    names = {path.name for path in folder.iterdir()} - {"mistakes.png"}
    assert names == {"config.json", "confusion.png", "summary.json"}
    assert (folder / "mistakes.png").exists() == (accuracy < 1)


def test_weights_from_another_framework_s_file_can_be_evaluated_and_trained(
    name, command, trained, small_folder, tmp_path
):
    """With a tiny learning rate, only BatchNorm's statistics change."""
    other = next(other for other in ("mxnet", "pytorch") if other != name)
    load_or_skip(other)
    suffix = backends.FRAMEWORKS[other].suffixes[0]
    before, _ = load_weights(trained[0] / "weights.safetensors")
    file = tmp_path / f"net{suffix}"
    with mock.patch("common.commands.convert.NUM_IMAGES", 1):
        code = run.main(["convert", str(trained[0] / "weights.safetensors"), str(file)])
    assert code == 0
    base = ["--weights", file, "--data", small_folder, "--image-size", 8]
    code, out, err = command(*base, command="evaluate")
    assert code == 0, err
    assert f"test acc {metrics(trained[0])[-1]['test_acc']:.3f}" in out
    folder = tmp_path / "further"
    code, out, err = command(*base, *SMALL, "--lr", "1e-30", "--output", folder)
    assert code == 0, err
    assert f" weights  {file}, as initial weights; the optimizer starts fresh\n" in out
    assert "images  not normalized: the weights file has no metadata\n" in out
    after, _ = load_weights(folder / "weights.safetensors")
    for weight in before:
        moved = np.abs(before[weight] - after[weight]).max() > 1e-20
        assert moved == is_buffer(weight), weight


class InProcess:
    """Run the command in this process, which has already imported the framework.

    Training draws only one sheet here, because each takes a third of a second. `trained` draws all seven.
    """

    def __init__(self, name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.name, self.folder, self.capsys = name, folder, capsys

    def __call__(self, *arguments: object, command: str = "train") -> tuple[int, str, str]:
        data_dir = () if "--cache-dir" in arguments else ("--cache-dir", self.folder / "data")
        words = [command, "--backend", self.name, *arguments, *data_dir]
        one_sheet = {"left-right flip": [RandomFlipLeftRight()]}
        sheets = one_sheet if command == "train" else gallery()
        with mock.patch("common.commands.augment.gallery", return_value=sheets):
            code = run.main([str(word) for word in words])
        captured = self.capsys.readouterr()
        return code, captured.out, captured.err


@pytest.fixture
def command(name, tmp_path, capsys) -> InProcess:
    return InProcess(name, tmp_path, capsys)


def any_backend() -> str:
    return next(name for name in backends.FRAMEWORKS if backends.installed(name))


@pytest.fixture
def any_command(tmp_path, capsys) -> InProcess:
    """The command on one backend, for tests that do not depend on the backend."""
    return InProcess(any_backend(), tmp_path, capsys)


def test_the_same_seed_gives_the_same_metrics_to_the_bit(command, trained, small_folder, tmp_path):
    code, _, _ = command("--data", small_folder, *SMALL, "--output", tmp_path / "again")
    assert code == 0
    assert metrics(tmp_path / "again") == metrics(trained[0])


def test_another_seed_gives_other_metrics(any_command, small_folder, tmp_path):
    for seed in (0, 1):
        options = ["--epochs", "1", "--seed", seed, "--output", tmp_path / str(seed)]
        assert any_command("--data", small_folder, *SMALL, *options)[0] == 0
    first, second = (metrics(tmp_path / str(seed)) for seed in (0, 1))
    assert [{**epoch, "seed": 0} for epoch in second] != first


@pytest.mark.slow  # test_loaders.py checks the same for the loaders
def test_the_native_pipeline_gives_the_same_metrics_with_any_number_of_workers(
    command, small_folder, tmp_path
):
    for workers in (0, 1, 2):
        code, _, _ = command(
            "--data", small_folder, *SMALL, "--pipeline", "native", "--augment", "flip,jitter,crop",
            "--workers", workers, "--output", tmp_path / str(workers),
        )  # fmt: skip
        assert code == 0
    assert metrics(tmp_path / "0") == metrics(tmp_path / "1") == metrics(tmp_path / "2")


def test_augment_only_draws(command, tmp_path):
    picture = tmp_path / "tall.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (900, 30, 4), np.uint8)).save(picture)
    for pipeline in ("batched", "native"):
        folder = tmp_path / pipeline
        code, out, _ = command(
            "--image", picture, "--pipeline", pipeline, "--output", folder, "--limit", 40, 20,
            command="augment",
        )  # fmt: skip
        assert code == 0
        assert "drawing only" in out
        assert "40 training images, 20 test images" in out
        assert sorted(path.suffix for path in folder.iterdir()) == [".json"] + [".png"] * 9


def test_augment_draws_the_same_pictures_again(any_command, tmp_path):
    for folder in ("a", "b"):
        assert any_command("--output", tmp_path / folder, "--limit", 40, command="augment")[0] == 0
    for picture in (tmp_path / "a").glob("*.png"):
        assert picture.read_bytes() == (tmp_path / "b" / picture.name).read_bytes()


def test_compare_augmentation_trains_both_from_the_same_initial_weights(
    any_command, small_folder, tmp_path
):
    folder = tmp_path / "compared"
    code, out, _ = any_command(
        "--data", small_folder, *SMALL, "--compare-augmentation", "--seeds", 2, "--output", folder
    )
    assert code == 0
    lines = metrics(folder)
    kinds = [(line["augment"], line["seed"], line["epoch"]) for line in lines]
    assert kinds == [(a, s, e) for s in (0, 1) for a in ("none", "flip") for e in (1, 2)]
    result = json.loads((folder / "comparison.json").read_text())
    for augment in ("none", "flip"):
        ends = [ln["test_acc"] for ln in lines if ln["augment"] == augment and ln["epoch"] == 2]
        assert result[augment]["test_acc"] == ends
        row = next(line for line in out.splitlines() if f"{augment}: train acc" in line)
        assert f"test acc {np.mean(ends):.3f} ({min(ends):.3f} to {max(ends):.3f}, 2 seeds)" in row
    assert (folder / "comparison.png").exists()
    single = tmp_path / "single"
    any_command(
        "--data", small_folder, *SMALL, "--augment", "none", "--seed", 1, "--output", single
    )
    assert metrics(single) == [ln for ln in lines if ln["augment"] == "none" and ln["seed"] == 1]


def test_help_is_printed_without_importing_numpy_or_a_framework():
    script = (
        "import sys, run\n"
        "try: run.main(['--help'])\n"
        "except SystemExit as end: code = end.code\n"
        "heavy = {'numpy', 'torch', 'torchvision', 'mxnet', 'tensorflow', 'keras', 'matplotlib'}\n"
        "sys.exit(code or ', '.join(heavy & set(sys.modules)) or 0)"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "--compare-augmentation" in result.stdout


def test_only_the_chosen_framework_is_imported(name):
    script = f"import sys, backends; backends.load({name!r}); print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(result.stdout.split())
    others = {
        package
        for other, framework in backends.FRAMEWORKS.items()
        if other != name
        for package in framework.packages
    }
    own = backends.FRAMEWORKS[name].packages
    assert own[0] in loaded
    assert not loaded & (others | {"mxnet", "tensorflow", "keras"} - set(own))
    # Their import takes seconds, and they are not needed yet; but Keras itself imports two of them.
    keras_s_own = {"matplotlib", "pandas"} if name == "tensorflow" else set()
    assert not loaded & ({"torchvision", "matplotlib", "pandas"} - keras_s_own)


# --- Invalid input ---------------------------------------------------------------------------------------------------


def refused(result: tuple[int, str, str], *words: str) -> None:
    """Check for exit code 2 and one line on standard error that has ``words``, without a traceback."""
    code, _, err = result
    assert code == 2, err
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1, err
    for word in words:
        assert word in err


def test_an_unknown_backend_is_refused_by_a_real_process():
    refused(finish(start("--backend", "caffe")), "unknown backend 'caffe'", "pytorch")


def test_a_missing_framework_names_the_extra_that_installs_it(monkeypatch, capsys):
    for name in backends.FRAMEWORKS:
        monkeypatch.setattr(backends, "find_spec", {}.get)
        code = run.main(["--backend", name])
        packages = backends.FRAMEWORKS[name].packages
        refused((code, "", capsys.readouterr().err), *packages, f"--extra {name}")


def test_a_broken_framework_is_not_reported_as_missing(monkeypatch, capsys):
    def broken(module: str) -> None:
        raise ImportError(f"{module}: libcudart.so.12 not found")

    monkeypatch.setattr(backends, "find_spec", lambda package: True)
    monkeypatch.setattr(backends, "import_module", broken)
    for name in backends.FRAMEWORKS:
        assert run.main(["--backend", name]) == 1
        last = capsys.readouterr().err.splitlines()[-1]
        assert last == f"ImportError: backends.{name}: libcudart.so.12 not found"


def test_no_network_and_no_data_says_how_to_get_it(tmp_path):
    name = any_backend()
    result = finish(
        start(
            "--backend", name, "--preset", "book", "--cache-dir", tmp_path, cwd=tmp_path, **OFFLINE
        )
    )
    refused(result, "cifar-10-python.tar.gz", str(tmp_path))
    assert not list(tmp_path.rglob("*.*"))


def test_a_truncated_archive_is_renamed_and_not_used(any_command, tmp_path):
    archive = tmp_path / "cifar-10-python.tar.gz"
    archive.write_bytes(b"half of it")
    refused(any_command("--data", "cifar10", "--cache-dir", tmp_path), "cifar-10-python.tar.gz")
    assert not archive.exists()
    assert [p.read_bytes() for p in tmp_path.glob("*.rejected*")] == [b"half of it"]


def small(tmp_path: Path, n: int = 40) -> Path:
    data = Data("bright", bright_dataset(n, 0), bright_dataset(20, 1))
    return write_folder(tmp_path / "pictures", data)


def spoil(folder: Path, how: str) -> None:
    if how == "unreadable":
        (folder / "train" / "dark" / "0001-broken.png").write_bytes(b"no image")
    if how == "foreign class":
        (folder / "test" / "bright").rename(folder / "test" / "dazzling")
    if how == "empty":
        for picture in folder.rglob("*.png"):
            picture.unlink()
    if how == "no train":
        (folder / "train").rename(folder / "training")


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("unreadable", ["0001-broken.png"]),
        ("foreign class", ["dazzling"]),
        ("empty", ["no images"]),
        ("no train", ["no folder train/"]),
    ],
)
def test_an_invalid_data_folder_is_refused_and_nothing_is_written(
    any_command, tmp_path, how, words
):
    folder = small(tmp_path)
    spoil(folder, how)
    result = any_command("--data", folder, *SMALL, "--output", tmp_path / "out")
    refused(result, *words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--batch-size", "41"], ["--batch-size 41", "40 training images"]),
        (["--epochs", "0"], ["--epochs 0"]),
        (["--lr", "-1"], ["--lr -1"]),
        (["--augment", "blur"], ["blur", "flip"]),
        (["--augment", "none", "--compare-augmentation"], ["--augment"]),
        (["--device", "gpu:99"], ["gpu:99"]),
        (["--data", "nowhere"], ["nowhere"]),
        (["--image", "nowhere.png"], ["nowhere.png"]),
        (["--image", __file__], ["test_run.py"]),
        (["--lr", "1e30"], ["diverged", "--lr"]),
    ],
)
def test_invalid_options_are_refused_in_one_line(command, small_folder, tmp_path, options, words):
    base = ["--data", small_folder, *SMALL, "--output", tmp_path / "out"]
    refused(command(*base, *options), *words)


def test_a_last_batch_of_one_image_of_8_x_8_is_refused(command, tmp_path):
    folder = small(tmp_path, n=41)
    refused(command("--data", folder, *SMALL, "--output", tmp_path / "out"), "BatchNorm")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("num_classes", "in_channels", "metadata", "which", "words"),
    [
        (3, 3, {}, "evaluate", ["has 3 classes", "has 2"]),
        (2, 1, {}, "evaluate", ["images with 1 channel", "have 3"]),
        (2, 1, {}, "train", ["images with 1 channel", "have 3"]),
        (2, 3, {"classes": '["cat", "dog"]'}, "evaluate", ["class 0 is cat in", "but bright in"]),
        (2, 3, {"classes": '["\\u001b[31m\\n", "a"]'}, "evaluate", ["\\x1b[31m\\n"]),
        (2, 3, {"classes": "cat, dog"}, "evaluate", ["no valid list of classes"]),
        (2, 3, {"classes": "cat, dog"}, "train", ["no valid list of classes"]),
    ],
)
def test_weights_for_other_images_are_refused_and_nothing_is_written(
    any_command, small_folder, tmp_path, which, num_classes, in_channels, metadata, words
):
    path = tmp_path / "other.safetensors"
    save_weights(path, initial_weights(num_classes, in_channels), metadata)
    result = any_command(
        "--weights", path, "--data", small_folder, "--image-size", 8, "--batch-size", 8,
        "--output", tmp_path / "out", command=which,
    )  # fmt: skip
    refused(result, "other.safetensors", *words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("num_classes", "metadata", "words"),
    [
        (3, {}, "3 classes"),
        (2, {"classes": '["bright", "dim"]'}, "class 1 is dim, not dark"),
    ],
)
def test_training_from_weights_for_other_classes_draws_a_new_last_layer(
    command, small_folder, tmp_path, num_classes, metadata, words
):
    """With --freeze, all other weights stay. The tiny learning rate keeps the last layer as it was drawn."""
    path, out_folder = tmp_path / "other.safetensors", tmp_path / "out"
    before = filled_weights(num_classes, num_channels=8)
    save_weights(path, before, metadata)
    options = "--data", small_folder, *SMALL[:4], "--lr", "1e-30", "--seed", 3
    code, out, err = command(
        "--weights", path, "--freeze", *options, "--epochs", 1, "--output", out_folder
    )
    assert code == 0, err
    assert (
        f" weights  {path} ({words}), as initial weights, with a new last layer for 2 classes; "
        "the optimizer starts fresh\n"
    ) in out
    assert "freeze  all but the last layer; BatchNorm keeps and uses its running stat" in out
    assert run.main(["--resume", str(out_folder), "--epochs", "2"]) == 0
    assert "goes on after epoch 1 of 2\n" in command.capsys.readouterr().out
    after, metadata = load_weights(out_folder / "weights.safetensors")
    assert json.loads(metadata["classes"]) == ["bright", "dark"]
    drawn = initial_weights(2, num_channels=8, seed=3)
    for name, weight in after.items():
        if name in LAST_LAYER:
            np.testing.assert_allclose(weight, drawn[name], atol=1e-20)
        else:
            np.testing.assert_array_equal(weight, before[name])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--freeze"], ["--freeze", "add --weights FILE"]),
        (
            ["--freeze", "--weights", "w.params", "--sync-batch-norm"],
            ["--freeze", "leave out --sync-batch-norm"],
        ),
    ],
)
def test_freeze_without_weights_or_with_shared_statistics_is_refused(any_command, options, words):
    refused(any_command(*options), *words)


def test_if_only_another_framework_reads_the_weights_the_error_names_the_command(
    tmp_path, monkeypatch, capsys
):
    path = tmp_path / "net.pt"
    path.write_bytes(b"whatever")
    monkeypatch.setattr(backends, "installed", lambda name: name != "pytorch")
    code = run.main(["evaluate", "--backend", "mxnet", "--weights", str(path)])
    err = capsys.readouterr().err
    refused(
        (code, "", err), "can only be read by pytorch", f"run.py convert {path} weights.safetensors"
    )


def test_names_may_have_markup_formulas_and_other_scripts(any_command, tmp_path):
    data = Data("x", bright_dataset(10, 0), bright_dataset(10, 1))
    names = ["[bold]dark", "$x_$ 日本, bright"]
    folder = write_folder(tmp_path / "set[/bold] $x_$ 日本", replace_classes(data, names))
    options = ["--image-size", "8", "--batch-size", "2", "--epochs", "1"]
    code, out, _ = any_command("--data", folder, *options, "--output", tmp_path / "out[/bold]")
    assert code == 0
    assert str(tmp_path / "out[/bold]") in out
    assert str(folder) in out
    _, metadata = load_weights(tmp_path / "out[/bold]" / "weights.safetensors")
    assert json.loads(metadata["classes"]) == sorted(names)


def replace_classes(data: Data, names: list[str]) -> Data:
    train, test = (
        Dataset(split.images, split.labels, tuple(names)) for split in (data.train, data.test)
    )
    return Data(data.name, train, test)


def test_an_output_that_cannot_be_written_is_refused(command, small_folder, tmp_path):
    (tmp_path / "file").write_text("in the way")
    for output in (tmp_path / "file", tmp_path / "file" / "below"):
        refused(command("--data", small_folder, *SMALL, "--output", output), str(output))


def test_a_run_is_never_overwritten(command, trained, small_folder):
    before = (trained[0] / "config.json").read_bytes()
    refused(command("--data", small_folder, *SMALL, "--output", trained[0]), "is not empty")
    assert (trained[0] / "config.json").read_bytes() == before


def test_a_full_disk_ends_the_run_with_one_line_and_complete_files(
    any_command, small_folder, tmp_path, monkeypatch
):
    from common.system import files

    real = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if Path(target).name == "weights.safetensors":
            raise OSError(28, "No space left on device")
        return real(self, target)

    monkeypatch.setattr(files.Path, "replace", replace)
    folder = tmp_path / "out"
    refused(
        any_command("--data", small_folder, *SMALL, "--output", folder), "disk is full", "weights"
    )
    names = {path.name for path in folder.iterdir()}
    assert {"config.json", "metrics.jsonl", "checkpoints"} <= names
    assert "weights.safetensors" not in names
    assert not [name for name in names if name.startswith(".")]


# --- Ctrl-C ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "pipeline"),
    [*((name, "batched") for name in backends.FRAMEWORKS), ("pytorch", "native")],
    indirect=["name"],
)
def test_ctrl_c_keeps_the_metrics_so_far_and_says_where(name, small_folder, tmp_path, pipeline):
    folder = tmp_path / "out"
    process = start(
        "--backend", name, "--data", small_folder, "--image-size", "8", "--batch-size", "8",
        "--epochs", "100000", "--pipeline", pipeline, "--workers", "2",
        "--output", folder, "--cache-dir", tmp_path / "data",
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not (folder / "metrics.jsonl").exists() or len(metrics(folder)) < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    code, _, err = finish(process)
    assert code == 130
    assert err.splitlines()[-1].startswith("interrupted: ")
    assert str(folder) in err
    assert "Traceback" not in err
    epochs = [line["epoch"] for line in metrics(folder)]
    assert epochs == list(range(1, len(epochs) + 1))
    assert f"{len(epochs)} finished epochs" in err
    assert (folder / "curves.png").exists()
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("common.commands.session.load_data", "interrupted"),
        ("common.drawing.image_grid.save_sheet", "0 finished epochs, kept in"),
        ("common.drawing.plots.save_curves", "2 finished epochs, kept in"),
        ("common.commands.train.save_weights", "2 finished epochs, kept in"),
    ],
)
def test_after_ctrl_c_at_any_moment_the_message_says_what_was_kept(
    any_command, small_folder, tmp_path, monkeypatch, place, words
):
    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(place, interrupt)
    code, _, err = any_command("--data", small_folder, *SMALL, "--output", tmp_path / "out")
    assert code == 130
    assert words in err
    assert len(err.splitlines()) == 1
