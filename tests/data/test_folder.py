"""Folders of images: each kind of file, the cache, the limit and the errors."""

import errno
import os
import shutil
import struct
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageOps

from common.datasets import balanced_subset, decoding, folder, load_data
from common.datasets.array_file import write_array
from common.datasets.decoding import image_chunks
from common.datasets.folder import load_folder
from common.datasets.images import image_extensions, to_square
from common.errors import UserError, UserNotice

GREEN, WHITE = (0, 128, 0), (255, 255, 255)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Return uint8 noise (height, width, 3): neighbours differ, so that any resampling is visible."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with 2 classes, each with 4 training and 2 test images of 8 x 8."""
    root = tmp_path / "animals"
    for split, count in (("train", 4), ("test", 2)):
        for label, name in enumerate(("cat", "dog")):
            for i in range(count):
                save(root / split / name / f"{i}.png", noise(8, 8, 100 * label + i))
    return root


def load(root: Path, **options: object):
    options = {"image_size": 8, "progress": False, **options}
    return load_folder(root, root.parent / "cache", **options)


def message(root: Path, **options: object) -> str:
    with pytest.raises(UserError) as caught:
        load(root, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def left_over(root: Path) -> list[str]:
    return sorted(path.name for path in (root.parent / "cache").glob("*"))


# ---- Loading


def test_images_are_sorted_by_class_then_name_with_their_labels(data: Path):
    loaded = load(data)
    assert loaded.name == "animals"
    assert loaded.train.classes == loaded.test.classes == ("cat", "dog")
    np.testing.assert_array_equal(loaded.train.labels, [0, 0, 0, 0, 1, 1, 1, 1])
    assert loaded.train.labels.dtype == np.int64
    expected = [noise(8, 8, seed) for seed in (0, 1, 2, 3, 100, 101, 102, 103)]
    np.testing.assert_array_equal(loaded.train.images, expected)
    np.testing.assert_array_equal(loaded.test.images, [noise(8, 8, s) for s in (0, 1, 100, 101)])


def test_the_order_does_not_depend_on_the_file_system(data: Path, monkeypatch: pytest.MonkeyPatch):
    expected = load(data, limit=(3, None))
    scandir = os.scandir

    @contextmanager
    def backwards(path: Path) -> Iterator[list["os.DirEntry[str]"]]:
        with scandir(path) as entries:
            yield list(entries)[::-1]

    monkeypatch.setattr(os, "scandir", backwards)
    other = load_folder(data, data.parent / "cache2", image_size=8, limit=(3, None), progress=False)
    np.testing.assert_array_equal(other.train.images, expected.train.images)
    np.testing.assert_array_equal(other.train.labels, expected.train.labels)


def test_files_that_are_not_read_are_named_in_one_notice(data: Path):
    cat = data / "train" / "cat"
    for name in (".DS_Store", "._0.png", "Thumbs.db", "notes.txt", "png", "video.mpg"):
        (cat / name).write_bytes(b"no image")
    (cat / "folder.png").mkdir()
    (data / "train" / ".ipynb_checkpoints").mkdir()
    (data / "train" / "readme.txt").write_text("no class")
    with pytest.warns(UserNotice) as caught:
        loaded = load(data)
    (notice,) = caught
    assert str(notice.message) == (
        f"left out of {data}: 2 TXT (train/cat/notes.txt, ...), 1 file without an extension "
        "(train/cat/png), 1 MPG (train/cat/video.mpg)"
    )
    assert len(loaded.train) == 8
    assert loaded.train.classes == ("cat", "dog")


def test_the_images_keep_the_names_of_their_files(data: Path):
    loaded = load(data, limit=(3, None))
    assert loaded.train.names == ["train/cat/0.png", "train/cat/3.png", "train/dog/0.png"]
    assert loaded.test.names[:2] == ["test/cat/0.png", "test/cat/1.png"]
    assert (loaded.held_out, loaded.how) == ("test", "")


@pytest.mark.parametrize("seed", [0, 1])
def test_images_labels_and_names_of_a_drawn_split_belong_together(data: Path, seed: int):
    loaded = load(data / "train", seed=seed, valid_ratio=0.5)
    assert (loaded.held_out, loaded.how) == ("valid", f"0.5 of each class, drawn with seed {seed}")
    for part in (loaded.train, loaded.test):
        assert part.labels.tolist() == [0, 0, 1, 1]
        for image, label, name in zip(part.images, part.labels, part.names, strict=True):
            assert name.startswith(f"{part.classes[label]}/")
            np.testing.assert_array_equal(image, noise(8, 8, 100 * label + int(name[4])))
    assert len({*loaded.train.names, *loaded.test.names}) == 8


def test_case_of_the_extension_does_not_matter(data: Path):
    (data / "train/cat/0.png").rename(data / "train/cat/0.PNG")
    (data / "train/cat/1.png").rename(data / "train/cat/1.Png")
    assert len(load(data).train) == 8


def test_common_extensions_are_images_and_programs_are_not():
    common = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm"}
    assert common <= image_extensions()
    assert not {".eps", ".ps", ".pdf", ".h5", ".mpg", ".txt", ".db", ""} & image_extensions()


def test_linked_files_and_folders_are_followed(data: Path, tmp_path: Path):
    (data / "train/cat").rename(tmp_path / "elsewhere")
    (data / "train/cat").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (data / "train/dog/9.png").symlink_to(tmp_path / "elsewhere" / "0.png")
    loaded = load(data)
    assert len(loaded.train) == 9
    np.testing.assert_array_equal(loaded.train.images[8], noise(8, 8, 0))


def test_nothing_is_printed(data: Path, capfd: pytest.CaptureFixture[str]):
    load_folder(data, data.parent / "cache", image_size=8)
    assert capfd.readouterr() == ("", "")


# ---- Conversion of an image


def flat(mode: str, colour: object, size: tuple[int, int] = (6, 6)) -> Image.Image:
    return Image.new(mode, size, colour)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (flat("RGB", GREEN), GREEN),
        (flat("L", 90), (90, 90, 90)),
        (flat("1", 1), WHITE),
        (flat("RGBA", (*GREEN, 255)), GREEN),
        (flat("RGBA", (*GREEN, 0)), WHITE),
        (flat("RGBA", (0, 0, 0, 102)), (153, 153, 153)),  # 255 * (1 - 102/255)
        (flat("LA", (0, 0)), WHITE),
        (flat("RGBa", (0, 0, 0, 0)), WHITE),
        (flat("La", (0, 0)), WHITE),
        (flat("CMYK", (0, 0, 0, 255)), (0, 0, 0)),
        (flat("CMYK", (255, 0, 0, 0)), (0, 255, 255)),
        (flat("I;16", 65535), WHITE),
        (flat("I;16", 257 * 7), (7, 7, 7)),
        (flat("I", 257 * 200), (200, 200, 200)),
        (flat("YCbCr", (90, 128, 128)), (90, 90, 90)),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else None,
)
def test_each_mode_is_converted_to_the_right_rgb(
    image: Image.Image, expected: tuple[int, int, int]
):
    pixels = to_square(image, 6)
    assert pixels.shape == (6, 6, 3)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, np.broadcast_to(expected, (6, 6, 3)))


def test_a_palette_with_transparent_colours_is_composited_on_white():
    image = flat("P", 0)
    image.putpalette([0, 0, 0, 0], "RGBA")
    np.testing.assert_array_equal(to_square(image, 6), np.full((6, 6, 3), 255))


@pytest.mark.parametrize("name", ["grey.png", "palette.png", "clear.gif", "deep.png", "cmyk.jpg"])
def test_files_of_other_modes_are_read_from_disk(data: Path, name: str):
    made, expected = {
        "grey.png": (flat("L", 90, (8, 8)), (90, 90, 90)),
        "palette.png": (flat("RGB", GREEN, (8, 8)).quantize(4), GREEN),
        "clear.gif": (flat("P", 0, (8, 8)), WHITE),
        "deep.png": (flat("I;16", 257 * 7, (8, 8)), (7, 7, 7)),
        "cmyk.jpg": (flat("CMYK", (0, 0, 0, 255), (8, 8)), (0, 0, 0)),
    }[name]
    options = {"transparency": 0} if name == "clear.gif" else {}
    made.save(data / "test/cat" / name, **options)
    loaded = load(data)
    place = sorted(["0.png", "1.png", name]).index(name)
    np.testing.assert_array_equal(loaded.test.images[place], np.broadcast_to(expected, (8, 8, 3)))


def test_an_image_of_the_right_size_is_unchanged():
    np.testing.assert_array_equal(to_square(Image.fromarray(noise(32, 32)), 32), noise(32, 32))


@pytest.mark.parametrize(("height", "width"), [(40, 90), (90, 40), (33, 32), (7, 100)])
def test_the_shorter_side_is_resized_and_the_middle_kept(height: int, width: int):
    """The image is a ramp along the longer side, so the middle row or column must have the middle value."""
    ramp = np.linspace(0, 255, max(height, width)).round().astype(np.uint8)
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[:] = ramp[None, :, None] if width > height else ramp[:, None, None]
    out = to_square(Image.fromarray(pixels), 32).astype(float)
    assert out.shape == (32, 32, 3)
    along = out[16, :, 0] if width > height else out[:, 16, 0]
    step = 255 * min(height, width) / max(height, width) / 32
    assert abs(along[15:17].mean() - 127.5) <= step + 1
    assert along[-1] - along[0] == pytest.approx(31 * step, abs=step + 2)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 3), (1, 300), (300, 1), (2, 3)])
def test_tiny_and_narrow_images_are_resized(height: int, width: int):
    assert to_square(Image.fromarray(noise(height, width)), 32).shape == (32, 32, 3)


def test_downsampling_is_antialiased():
    """One-pixel stripes average to grey; without antialiasing they stay black or white."""
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    inside = to_square(Image.fromarray(stripes), 16)[:, 1:-1]
    assert abs(inside.astype(int) - 127).max() <= 10


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_as_pillow_does(tmp_path: Path, orientation: int):
    image = Image.fromarray(noise(8, 8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "x.png", exif=exif)
    with Image.open(tmp_path / "x.png") as opened:
        found = to_square(opened, 8)
        expected = np.asarray(ImageOps.exif_transpose(opened))
    np.testing.assert_array_equal(found, expected)
    assert (orientation == 1) == np.array_equal(found, noise(8, 8))


def test_an_image_with_damaged_exif_data_is_read(data: Path):
    path = data / "train/cat/9.png"
    Image.fromarray(noise(8, 8)).save(path, exif=b"Exif\0\0XX\0*" + b"\xff" * 20)
    assert len(load(data).train) == 9


# ---- The limit


def test_limit_keeps_a_balanced_deterministic_subset_and_all_classes(data: Path):
    loaded = load(data, limit=(4, 1))
    np.testing.assert_array_equal(loaded.train.labels, [0, 0, 1, 1])
    assert len(loaded.test) == 1
    assert loaded.test.classes == ("cat", "dog")
    again = load_folder(data, data.parent / "new", image_size=8, limit=(4, 1), progress=False)
    np.testing.assert_array_equal(again.train.images, loaded.train.images)


def test_limit_is_the_same_on_every_machine(data: Path):
    """Files are chosen by the SHA-256 of "<class>/<file>"; these were computed independently."""
    kept = load(data, limit=(4, None)).train.images
    # sha256sum's smallest: cat/0.png 1a07, cat/3.png 66c1; dog/0.png 747c, dog/2.png 8234.
    np.testing.assert_array_equal(kept, [noise(8, 8, seed) for seed in (0, 3, 100, 102)])


def test_limit_beyond_the_data_keeps_everything(data: Path):
    assert len(load(data, limit=(1000, None)).train) == 8


@pytest.mark.parametrize("limit", [0, -1])
def test_limit_that_leaves_nothing_is_refused(data: Path, limit: int):
    assert f"a limit of {limit} examples" in message(data, limit=(limit, None))


def test_balanced_subset_is_balanced_sorted_and_nested():
    labels = np.array([2, 0, 0, 0, 1, 1, 2, 0, 1, 0])
    np.testing.assert_array_equal(balanced_subset(labels, 3), [0, 1, 4])
    np.testing.assert_array_equal(balanced_subset(labels, 4), [0, 1, 2, 4])
    np.testing.assert_array_equal(balanced_subset(labels, 9), [0, 1, 2, 3, 4, 5, 6, 7, 8])
    np.testing.assert_array_equal(balanced_subset(labels, None), np.arange(10))
    for limit in range(1, 10):
        smaller, larger = balanced_subset(labels, limit), balanced_subset(labels, limit + 1)
        assert len(smaller) == limit
        assert set(smaller) < set(larger)


# ---- The cache


def decoded_counts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    seen: list[str] = []
    decode = decoding.decode_into

    def counting(out: np.ndarray, path: str) -> str | None:
        seen.append(Path(path).name)
        return decode(out, path)

    monkeypatch.setattr(decoding, "decode_into", counting)
    return seen


def test_second_load_decodes_nothing(data: Path, monkeypatch: pytest.MonkeyPatch):
    first = load(data)
    seen = decoded_counts(monkeypatch)
    second = load(data)
    assert seen == []
    np.testing.assert_array_equal(first.train.images, second.train.images)
    assert len(left_over(data)) == 2


def break_files(data: Path) -> None:
    whole = (data / "train/cat/1.png").read_bytes()
    (data / "train/cat/1.png").write_bytes(whole[: len(whole) // 2])  # truncated
    (data / "train/dog/0.png").write_bytes(b"no image at all")
    (data / "test/dog/0.png").write_bytes(b"")  # as another one in train/


def test_broken_images_are_left_out_with_a_notice_if_asked(
    data: Path, monkeypatch: pytest.MonkeyPatch
):
    break_files(data)
    with pytest.warns(UserNotice) as caught:
        loaded = load(data, skip_broken=True)
    text = str(caught.pop(UserNotice).message)
    assert text.startswith(f"left out, because they cannot be read: {data / 'train/cat/1.png'} (")
    assert text.endswith("(3 in all)")
    for name in ("train/dog/0.png", "test/dog/0.png"):
        assert f"{data / name} (not an image, or damaged, or in another format)" in text
    expected = [noise(8, 8, seed) for seed in (0, 2, 3, 101, 102, 103)]
    np.testing.assert_array_equal(loaded.train.images, expected)
    assert loaded.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert loaded.train.names == [
        *(f"train/cat/{i}.png" for i in (0, 2, 3)),
        *(f"train/dog/{i}.png" for i in (1, 2, 3)),
    ]
    assert loaded.test.names == ["test/cat/0.png", "test/cat/1.png", "test/dog/1.png"]
    # They are known the next time, without decoding, and named again.
    seen = decoded_counts(monkeypatch)
    with pytest.warns(UserNotice, match=r"\(3 in all\)$"):
        again = load(data, skip_broken=True)
    assert seen == []
    np.testing.assert_array_equal(again.train.images, expected)
    assert again.train.names == loaded.train.names
    # Without the option they remain an error, and a repaired file is read.
    assert "(3 in all); replace or remove them, or leave them out with --skip" in message(data)
    break_files(data)
    save(data / "train/cat/1.png", noise(8, 8, 1))
    with pytest.warns(UserNotice, match=r"\(2 in all\)$"):
        assert len(load(data, skip_broken=True).train) == 7


def test_a_damaged_list_of_broken_images_is_made_again(data: Path):
    break_files(data)
    for content in (None, b"{", b"[3]", b'{"other.png": "x"}'):
        for path in (data.parent / "cache").glob("*.json") if content else ():
            path.write_bytes(content)
        with pytest.warns(UserNotice, match=r"\(3 in all\)$"):
            assert len(load(data, skip_broken=True).train) == 6


def test_a_class_without_readable_images_is_an_error(data: Path):
    for path in (data / "train/dog").iterdir():
        path.write_bytes(b"no image")
    assert "no image of dog (1 in all) that can be read" in message(data, skip_broken=True)
    for path in (data / "test/dog").iterdir():  # no error in test images
        path.write_bytes(b"no image")
        save(data / "train/dog" / path.name, noise(8, 8))
    with pytest.warns(UserNotice, match=r"\(4 in all\)$"):
        assert load(data, skip_broken=True).test.labels.tolist() == [0, 0]


@pytest.mark.parametrize("bound", ["files", "bytes"])
def test_the_cache_keeps_the_files_used_last(
    data: Path, bound: str, monkeypatch: pytest.MonkeyPatch
):
    for size in (4, 5, 6):
        load(data, image_size=size)
    (data.parent / "cache/notes.npy").write_text("of the user")
    for path in (data.parent / "cache").glob("*-*.npy"):
        os.utime(path, ns=(0, path.stat().st_size))  # the larger, the later used
    load(data, image_size=4)  # used again
    assert len(left_over(data)) == 7
    if bound == "files":
        monkeypatch.setattr(folder, "MAX_CACHE_FILES", 4)
    else:
        sizes = [(8 + 4) * side * side * 3 + 2 * 160 for side in (4, 8)]  # with header and checksum
        monkeypatch.setattr(folder, "MAX_CACHE_BYTES", sum(sizes))
    with pytest.warns(UserNotice, match=rf"removed from {data.parent / 'cache'}, .*: 4 files with"):
        load(data)
    assert len(left_over(data)) == 5
    seen = decoded_counts(monkeypatch)
    load(data, image_size=4)
    assert seen == []


def test_the_cache_keeps_what_is_in_use(data: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(folder, "MAX_CACHE_FILES", 0)
    used = load(data)
    assert len(left_over(data)) == 2
    other = load(data, image_size=4)
    assert len(left_over(data)) == 4
    del used
    with pytest.warns(UserNotice, match="2 files with"):
        load(data, image_size=4)
    assert len(left_over(data)) == 2
    assert other.train.images.shape == (8, 4, 4, 3)


@pytest.mark.parametrize("change", ["content", "new file", "removed file", "time", "size"])
def test_a_change_to_the_files_invalidates_the_cache(data: Path, change: str):
    load(data)
    path = data / "train/cat/0.png"
    options = {}
    expected = [noise(8, 8, seed) for seed in (0, 1, 2, 3, 100, 101, 102, 103)]
    if change == "content":
        save(path, noise(8, 8, 77))
        os.utime(path, ns=(1, 1))
        expected[0] = noise(8, 8, 77)
    elif change == "new file":
        save(data / "train/cat/00.png", noise(8, 8, 78))
        expected.insert(1, noise(8, 8, 78))
    elif change == "removed file":
        path.unlink()
        expected.pop(0)
    elif change == "time":
        os.utime(path, ns=(1, 1))
    else:
        options = {"image_size": 4}
        expected = [to_square(Image.fromarray(pixels), 4) for pixels in expected]
    np.testing.assert_array_equal(load(data, **options).train.images, expected)
    assert len(left_over(data)) > 2


def test_a_change_that_keeps_size_and_time_invalidates_the_cache(data: Path):
    path = data / "train/cat/0.bmp"  # not compressed: all images of 8 x 8 have the same size
    save(path, noise(8, 8, 77))
    load(data)
    before = path.stat()
    save(path, noise(8, 8, 78))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    np.testing.assert_array_equal(load(data).train.images[0], noise(8, 8, 78))


def test_images_of_another_pillow_are_decoded_again(data: Path, monkeypatch: pytest.MonkeyPatch):
    load(data)
    seen = decoded_counts(monkeypatch)
    monkeypatch.setattr(folder, "version", lambda _: "0.0")
    load(data)
    assert len(seen) == 12


def test_two_folders_with_equal_names_sizes_and_times_have_separate_caches(tmp_path: Path):
    for name, seed in (("one", 1), ("two", 2)):
        for split in ("train", "test"):
            save(tmp_path / name / split / "x" / "0.bmp", noise(8, 8, seed))
            os.utime(tmp_path / name / split / "x" / "0.bmp", ns=(0, 0))
    np.testing.assert_array_equal(load(tmp_path / "one").train.images[0], noise(8, 8, 1))
    np.testing.assert_array_equal(load(tmp_path / "two").train.images[0], noise(8, 8, 2))


def overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(200)
        file.write(b"damaged")


def replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGE = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-5]),
    "overwritten": overwrite,
    "another array": lambda path: np.save(path, np.zeros((8, 8, 8, 3), np.uint8)),
    "an archive": lambda path: np.savez(path.open("wb"), np.zeros((8, 8, 8, 3), np.uint8)),
    "a pipe": replace_by_pipe,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_cache_is_decoded_again(data: Path, damage: str, monkeypatch: pytest.MonkeyPatch):
    first = load(data).train.images.copy()
    (path,) = (data.parent / "cache").glob("train*.npy")
    DAMAGE[damage](path)
    np.testing.assert_array_equal(load(data).train.images, first)
    seen = decoded_counts(monkeypatch)
    np.testing.assert_array_equal(load(data).train.images, first)
    assert seen == [], "the cache is intact again"


CONTAINER = """
import os, sys
from pathlib import Path
from common.datasets.folder import load_folder

data = load_folder(Path(sys.argv[1]), Path(sys.argv[2]), image_size=8, progress=False)
print(os.getpid(), data.train.images.sum(dtype=int))
"""


@pytest.mark.slow
def test_containers_with_equal_process_ids_can_share_a_cache(data: Path):
    """Each process has its own namespace of process ids, as in a container."""
    container = ("unshare", "--fork", "--pid", "--mount-proc")
    if subprocess.run([*container, "true"], check=False, capture_output=True).returncode:
        pytest.skip("needs unshare and root")
    command = [*container, sys.executable, "-c", CONTAINER, str(data), str(data.parent / "cache")]
    root = Path(__file__).parents[2]
    children = [subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE) for _ in range(4)]
    total = sum(noise(8, 8, seed).sum(dtype=int) for seed in (0, 1, 2, 3, 100, 101, 102, 103))
    assert [child.communicate()[0].split() for child in children] == [
        [b"1", str(total).encode()]
    ] * 4
    assert len(left_over(data)) == 2


def test_writing_into_the_images_does_not_change_the_cache(data: Path):
    images = load(data).train.images
    kept = images.copy()
    images[:] = 0  # a framework may want to write
    np.testing.assert_array_equal(load(data).train.images, kept)


# ---- Errors


def test_a_missing_path_is_reported(tmp_path: Path):
    assert f"there is no folder {tmp_path / 'nothing'}" in message(tmp_path / "nothing")


def test_missing_training_images_are_reported(data: Path):
    shutil.rmtree(data / "train")
    assert "no folder train/" in message(data)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_split_without_images_is_reported(data: Path, split: str):
    for path in (data / split).glob("*/*"):
        path.unlink()
    assert f"{data / split} has no images" in message(data)


def test_a_class_only_in_test_is_reported(data: Path):
    save(data / "test/eel/0.png", noise(8, 8))
    assert "eel (1 in all), but train/ does not" in message(data)


def test_a_class_without_training_images_is_reported(data: Path):
    for path in (data / "train/dog").iterdir():
        path.rename(path.with_suffix(".txt"))
    assert "no images of dog (1 in all)" in message(data)


def test_a_class_without_test_folder_is_an_error_but_an_empty_folder_is_not(data: Path):
    shutil.rmtree(data / "test/dog")
    assert "no folder for dog (1 in all)" in message(data)
    (data / "test/dog").mkdir()
    loaded = load(data)
    np.testing.assert_array_equal(loaded.test.labels, [0, 0])
    assert loaded.test.classes == ("cat", "dog")


def test_unreadable_images_of_both_splits_are_listed_and_counted(data: Path):
    break_files(data)
    text = message(data)
    assert f"images that cannot be read: {data / 'train/cat/1.png'} (" in text
    assert f"{data / 'test/dog/0.png'} (not an image" in text
    assert "(3 in all); replace or remove them, or leave them out with --skip-broken" in text
    assert left_over(data) == []
    # The suggested fix works.
    for name in ("train/cat/1.png", "train/dog/0.png", "test/dog/0.png"):
        (data / name).unlink()
    assert len(load(data).train) == 6


def test_truncated_jpeg_is_unreadable(data: Path):
    path = data / "train/cat/9.jpg"
    Image.fromarray(noise(64, 64)).save(path)
    path.write_bytes(path.read_bytes()[:-400])
    assert f"cannot be read: {path} (" in message(data)


def test_decompression_bomb_is_unreadable(data: Path):
    size = struct.pack("<HH", 60000, 60000)
    header = b"\0\0\x02" + b"\0" * 9 + size + b"\x18\0"
    (data / "train/cat/9.tga").write_bytes(header + b"\0" * 100)
    assert "9.tga" in message(data)


@pytest.mark.parametrize("size", [(1, 200_000), (200_000, 1)])
def test_an_image_that_would_fill_the_memory_is_unreadable(data: Path, size: tuple[int, int]):
    Image.new("1", size).save(data / "train/cat/b.png")
    assert "b.png (it would have " in message(data, image_size=32)


def test_a_broken_link_is_reported(data: Path):
    (data / "train/cat/8.png").symlink_to("nowhere.png")
    assert f"{data / 'train/cat/8.png'} cannot be read" in message(data)


def test_a_full_disk_leaves_no_file_and_the_error_says_what_to_do(
    data: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    text = message(data)
    assert "the disk is full" in text
    assert str(data.parent / "cache") in text
    assert "choose another folder" in text
    assert "--cache-dir" in text
    assert left_over(data) == []


def test_a_full_disk_raises_and_does_not_kill_the_process(data: Path):
    """/dev/full fails every write like a full disk; a memory-mapped file would kill the process."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    chunks = image_chunks(data / "train/cat", ["0.png"], 8)
    with pytest.raises(OSError, match="No space left"):
        write_array(Path("/dev/full"), (1, 8, 8, 3), chunks, print)


def test_decoding_says_how_much_space_it_needs_and_refuses_before_it_begins(
    data: Path, monkeypatch: pytest.MonkeyPatch
):
    """8 training images of 8 x 8 take 1,536 bytes."""
    seen = decoded_counts(monkeypatch)
    monkeypatch.setattr(folder, "disk_usage", lambda _: SimpleNamespace(free=1535))
    text = message(data)
    assert f"{data / 'train'} at 8 x 8 pixels needs 0.0 GB in {data.parent / 'cache'}" in text
    assert "the disk has 0.0 GB free" in text
    assert seen == left_over(data) == []
    monkeypatch.setattr(folder, "disk_usage", lambda _: SimpleNamespace(free=1536))
    monkeypatch.setattr(folder, "LARGE", 1536)
    with pytest.warns(UserNotice, match=r"train at 8 x 8 pixels: 0\.0 GB in .*cache") as notices:
        load(data)
    assert len(notices) == 1  # not for the 4 test images
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(data)  # from the cache


def test_a_cache_that_cannot_be_written_is_reported(data: Path):
    (data.parent / "cache").write_text("a file where the folder should be")
    text = message(data)
    assert f"cannot write {data.parent / 'cache'}" in text
    assert "choose another folder" in text


def test_interrupted_decoding_leaves_no_file(data: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(decoding, "decode_into", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load(data)
    assert left_over(data) == []


def test_image_size_below_one_is_refused(data: Path):
    assert "image size of 0" in message(data, image_size=0)


# ---- By name


def test_load_data_accepts_a_path_and_has_its_cache_in_data_dir(data: Path, tmp_path: Path):
    loaded = load_data(str(data), data_dir=tmp_path / "d", image_size=8, limit=(2, None))
    assert loaded.train.images.shape == (2, 8, 8, 3)
    assert len(list((tmp_path / "d" / "cache").glob("*.npy"))) == 2


def test_load_data_names_the_choices_for_an_unknown_name(tmp_path: Path):
    with pytest.raises(UserError, match=r"'cifar' ?: choose shapes, cifar10, or a folder"):
        load_data("cifar", data_dir=tmp_path)


def test_load_data_refuses_to_split_other_data(tmp_path: Path):
    for name in ("shapes", "cifar10"):
        with pytest.raises(UserError, match=f"--valid-ratio 0.3: {name} has test images of its"):
            load_data(name, data_dir=tmp_path, valid_ratio=0.3)


def test_load_data_limits_all_classes_of_the_shapes_equally(tmp_path: Path):
    loaded = load_data("shapes", data_dir=tmp_path, limit=(20, 10), seed=3)
    assert np.bincount(loaded.train.labels).tolist() == [2] * 10
    assert np.bincount(loaded.test.labels).tolist() == [1] * 10
    assert list(tmp_path.iterdir()) == []


def test_load_data_refuses_another_image_size_for_shapes(tmp_path: Path):
    with pytest.raises(UserError, match="32 x 32"):
        load_data("shapes", data_dir=tmp_path, image_size=64)
