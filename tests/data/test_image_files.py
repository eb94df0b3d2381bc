"""Which files are images: their formats, their kind, damaged ones, and the one place that opens them."""

import os
import re
import socket
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, PpmImagePlugin

from common.datasets import images as images_module
from common.datasets import load_data
from common.datasets.competition import list_images, read_label_file
from common.datasets.decoding import decode_into, read_images
from common.datasets.folder import load_folder
from common.datasets.images import (
    FORMATS,
    as_rgb,
    image_extensions,
    image_formats,
    is_image,
    read_image,
)
from common.datasets.kaggle import read_csv_labels, reorg_cifar10_data
from common.datasets.submission import check_submission
from common.errors import UserError

ROOT = Path(__file__).parents[2]
PICTURE = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
# PSD cannot be written by Pillow. This one has one layer, without compression.
PSD = (
    b"8BPS\0\1"
    + b"\0" * 6
    + struct.pack(">HIIHH", 3, 12, 12, 8, 3)
    + b"\0" * 12
    + b"\0\0"
    + np.moveaxis(PICTURE, 2, 0).tobytes()
)
POSTSCRIPT = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 12 12
%%EndComments
1 0 0 setrgbcolor 0 0 12 12 rectfill
showpage
%%EOF
"""


def written(name: str) -> bytes:
    """Return the picture as a file of the format ``name``."""
    file = BytesIO()
    if name == "PSD":
        return PSD
    Image.fromarray(PICTURE).save(file, name)
    return file.getvalue()


def iptc(content: bytes) -> bytes:
    """Return an IPTC file of 12 x 12 that holds another file."""

    def field(record: int, number: int, value: bytes) -> bytes:
        return struct.pack(">BBBH", 0x1C, record, number, len(value)) + value

    head = field(3, 60, b"\3\1") + field(3, 65, b"\1")
    size = field(3, 20, b"\0\x0c") + field(3, 30, b"\0\x0c")
    return head + size + field(3, 120, b"\5") + field(8, 10, content)


def problem(path: Path) -> str:
    text = decode_into(np.empty((8, 8, 3), np.uint8), path)
    assert text is not None
    return text


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- Formats


@pytest.mark.parametrize("name", image_formats())
def test_each_format_is_read(tmp_path: Path, name: str):
    """GIF has 256 colours, and four formats lose detail of the noise: they are compared by their mean colour."""
    (tmp_path / "x").write_bytes(written(name))
    read = read_image(tmp_path / "x", 100)
    if name in ("GIF", "JPEG", "AVIF", "WEBP", "JPEG2000"):
        assert read.shape == PICTURE.shape
        assert np.abs(read.mean(axis=(0, 1)) - PICTURE.mean(axis=(0, 1))).max() < 15
    else:
        np.testing.assert_array_equal(read, PICTURE)


def test_this_pillow_has_all_formats():
    assert tuple(name for name in image_formats() if name != "HEIF") == FORMATS


@pytest.fixture
def pillow_heif(monkeypatch: pytest.MonkeyPatch) -> Iterator[mock.Mock]:
    """A pillow-heif that reads PPM files, registered until the end of the test."""

    class Heif(PpmImagePlugin.PpmImageFile):
        format = "HEIF"

    def register() -> None:
        Image.register_open("HEIF", Heif, lambda prefix: prefix.startswith(b"P6"))
        Image.register_extension("HEIF", ".heic")

    fake = mock.Mock(**{"register_heif_opener.side_effect": register})
    monkeypatch.setitem(sys.modules, "pillow_heif", fake)
    for name in ("OPEN", "ID", "EXTENSION"):
        monkeypatch.setattr(Image, name, getattr(Image, name).copy())
    image_formats.cache_clear()
    image_extensions.cache_clear()
    yield fake
    image_formats.cache_clear()
    image_extensions.cache_clear()


def test_pillow_heif_adds_its_format_once(pillow_heif: mock.Mock, tmp_path: Path):
    assert is_image("IMG_1.HEIC")
    assert image_formats() == ("HEIF", *FORMATS)
    (tmp_path / "x.heic").write_bytes(written("PPM"))
    np.testing.assert_array_equal(read_images([tmp_path / "x.heic"], 12), [PICTURE])
    pillow_heif.register_heif_opener.assert_called_once_with()


def test_a_pillow_heif_that_lacks_a_module_is_an_error(pillow_heif: mock.Mock):
    lacking = ModuleNotFoundError("No module named '_pillow_heif'", name="_pillow_heif")
    pillow_heif.register_heif_opener.side_effect = lacking
    with pytest.raises(ModuleNotFoundError, match="_pillow_heif"):
        image_formats()


@pytest.mark.parametrize(
    "extension", [".eps", ".ps", ".wmf", ".emf", ".iim", ".fits", ".grib", ".h5", ".mpg", ".pdf"]
)
def test_other_formats_are_not_images(extension: str):
    assert extension not in image_extensions()
    assert not is_image(f"x{extension}")


def test_a_jpeg_with_several_pictures_gives_the_first(tmp_path: Path):
    first, second = Image.new("RGB", (8, 8), "white"), Image.new("RGB", (8, 8), "black")
    first.save(tmp_path / "x.jpg", "MPO", save_all=True, append_images=[second])
    np.testing.assert_array_equal(read_image(tmp_path / "x.jpg", 100), np.full((8, 8, 3), 255))


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_the_orientation_is_read_from_the_file(tmp_path: Path, name: str):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned to the left: the top row becomes the right column
    image = Image.new("L", (16, 32), 0)
    image.paste(255, (0, 0, 16, 8))
    image.convert("RGB").save(tmp_path / "x", name, exif=exif)
    read = read_image(tmp_path / "x", 100)
    assert read.shape == (16, 32, 3)
    assert read[:, 25:].min() > 200
    assert read[:, :23].max() < 50


STARTS_PROGRAMS = """
import sys
from pathlib import Path
import numpy as np
from PIL import Image
from common.datasets.decoding import decode_into

called = Path(sys.argv[1])
for path in sys.argv[2:]:
    assert decode_into(np.empty((8, 8, 3), np.uint8), path), path
    assert not called.exists(), path
for path in sys.argv[2:]:  # as Pillow opens them by itself
    try:
        with Image.open(path) as image:
            image.load()
    except Exception:
        pass
    assert called.exists(), path
    called.unlink()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the program is a shell script")
def test_no_file_starts_a_program(tmp_path: Path):
    """A false Ghostscript notes that it was started; Pillow starts it for each of these files."""
    called, programs = tmp_path / "called", tmp_path / "bin"
    programs.mkdir()
    (programs / "gs").write_text(f"#!/bin/sh\ntouch {called}\n")
    (programs / "gs").chmod(0o755)
    for name in ("x.png", "x.jpg", "x"):
        (tmp_path / name).write_bytes(POSTSCRIPT)
    (tmp_path / "inside.png").write_bytes(iptc(POSTSCRIPT))
    names = [str(tmp_path / name) for name in ("x.png", "x.jpg", "x", "inside.png")]
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    child = subprocess.run(
        [sys.executable, "-c", STARTS_PROGRAMS, str(called), *names],
        check=False,
        cwd=ROOT,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
    )
    assert child.returncode == 0, child.stderr


def test_image_files_are_opened_in_one_place():
    sources = [
        ROOT / "run.py",
        *(ROOT / "common").rglob("*.py"),
        *(ROOT / "backends").rglob("*.py"),
    ]
    opens = re.compile(
        r"Image\.open\(|imread\(|imdecode\(|decode_image\(|decode_png\(|decode_jpeg\("
    )
    found = [s.name for s in sources for _ in opens.finditer(s.read_text(encoding="utf-8"))]
    assert set(found) == {"images.py"}


# ---- Kinds of files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a class of one image in each split."""
    for split in ("train", "test"):
        (tmp_path / "photos" / split / "cat").mkdir(parents=True)
        Image.fromarray(PICTURE).save(tmp_path / "photos" / split / "cat" / "0.png")
    return tmp_path / "photos"


@pytest.fixture(params=["pipe", "socket", "device", "link to itself", "link to a pipe"])
def special(request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is not regular, with the name of an image, among the training images."""
    path = folder / "train/cat/x.png"
    if request.param == "pipe":
        os.mkfifo(path)
    elif request.param == "socket":
        monkeypatch.chdir(path.parent)  # the address of a socket has at most 107 bytes
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    elif request.param == "device":
        path.symlink_to("/dev/zero")
    elif request.param == "link to itself":
        path.symlink_to(path.name)
    else:
        os.mkfifo(folder / "pipe")
        path.symlink_to(folder / "pipe")
    return path


def load(folder: Path) -> object:
    return load_folder(folder, folder.parent / "cache", image_size=8, progress=False)


def test_a_folder_with_a_file_that_is_not_regular_is_an_error(special: Path, folder: Path):
    text = refusal(lambda: load(folder))
    assert text.startswith(f"{special} cannot be read (")
    assert text.endswith("): remove it")
    special.unlink()  # the suggested fix works
    load(folder)


def test_a_file_that_is_not_regular_is_not_read(special: Path):
    assert f"{special} (" in problem(special)
    assert f"cannot read the image {special} (" in refusal(lambda: read_image(special, 100))
    assert f"{special} (" in refusal(lambda: read_images([special], 8))


def test_a_competition_ignores_or_reports_a_file_that_is_not_regular(special: Path):
    listing = list_images(special.parent)
    assert listing.names == ["0.png"]
    assert listing.ignored == ["x.png"] or "broken links, x.png" in listing.problems[0]


def test_a_pipe_in_place_of_a_csv_is_an_error(tmp_path: Path):
    os.mkfifo(tmp_path / "trainLabels.csv")
    (found,) = read_label_file(tmp_path / "trainLabels.csv", "replace it").problems
    assert found.endswith("as a csv (not a regular file): replace it")


def test_a_file_that_becomes_a_pipe_while_it_is_listed_is_an_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    path = folder / "train/cat/0.png"

    def replace(*arguments: object) -> None:
        path.unlink()
        os.mkfifo(path)

    monkeypatch.setattr("common.datasets.folder._wait_for_new_time", replace)
    assert f"{path} (not a regular file)" in refusal(lambda: load(folder))


@pytest.mark.parametrize("target", ["dog", "nowhere"])
def test_a_class_folder_that_is_a_broken_link_is_an_error(folder: Path, target: str):
    for split in ("train", "test"):  # a class that only one of them has is another error
        (folder / split / "dog").symlink_to(target)
    assert f"{folder / 'train/dog'} cannot be read (" in refusal(lambda: load(folder))


# ---- Damaged files


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse images of more than a million pixels: a damaged header may ask for many."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500_000)
    monkeypatch.setattr(images_module, "MAX_PIXELS", 1_000_000)


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """Draw a file with some bytes changed, inserted or removed, perhaps cut."""
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(len(content) - 1, 0)) | st.integers(0, 64))
        new = draw(
            st.binary(max_size=8) | st.sampled_from([b"\xff" * 4, b"\0" * 4, b"\x7f\xff" * 2])
        )
        content[place : place + draw(st.sampled_from([0, len(new), 4]))] = new
    return bytes(content[: draw(st.integers(0, 2 * len(content)))])


@pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::RuntimeWarning:PIL")
@pytest.mark.usefixtures("small_limits")
@pytest.mark.parametrize("examples", [20, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_file_is_read_or_reported(tmp_path: Path, name: str, examples: int):
    @given(damaged(written(name)))
    @settings(
        max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    def check(content: bytes) -> None:
        path, out = tmp_path / "x.png", np.full((8, 8, 3), 7, np.uint8)
        path.write_bytes(content)
        text = decode_into(out, path)
        assert text is None or (text.startswith(f"{path} (") and "\n" not in text)

    check()


@pytest.mark.parametrize(
    "head",
    [b"RIFF\0\0\0\x70WEBPVP8 ", b"GIF89a\x10\0\x10\0\0\0\0", b"\xff\xd8\xff\xe0\0\x10JFIF\0"],
)
def test_a_file_too_large_for_an_image_is_not_read_into_the_memory(tmp_path: Path, head: bytes):
    with (tmp_path / "x.png").open("wb") as file:
        file.write(head)
        file.truncate(2**40)  # without blocks on the disk
    assert "(1,099,511,627,776 bytes are too many for an image)" in problem(tmp_path / "x.png")


def test_the_reason_names_no_object_of_python(tmp_path: Path):
    (tmp_path / "x.png").write_bytes(b"no image")
    text = problem(tmp_path / "x.png")
    assert text == f"{tmp_path / 'x.png'} (not an image, or damaged, or in another format)"


# ---- Paths that are too long


LONG = ["a" * 5000, "a/" * 2500, "a" * 300, "~nobody-here/photos"]


@pytest.mark.parametrize("path", LONG, ids=["name", "folders", "name of 300", "home"])
def test_a_path_that_cannot_exist_is_an_error_of_one_line(tmp_path: Path, path: str):
    calls: dict[str, Callable[[], object]] = {
        "no data called": lambda: load_data(path, data_dir=tmp_path),
        "there is no folder": lambda: load_folder(Path(path), tmp_path),
        "cannot read the image": lambda: read_image(Path(path), 100),
        "images that cannot be read": lambda: read_images([path], 8),
        "there is no folder ": lambda: reorg_cifar10_data(path, 0.1),
        "problems": lambda: check_submission(tmp_path / "x.csv", path),
        ": unpack": lambda: read_csv_labels(path),
    }
    for words, call in calls.items():
        assert words in refusal(call)


# ---- The transparent colour of a PNG file, in its chunk tRNS


GREY, RGB, PALETTE, GREY_ALPHA = 0, 2, 3, 4  # PNG's colour types


def png(
    depth: int, colour: int, rows: list[bytes], width: int, *, interlaced: bool = False, **chunks
):
    """Return a PNG file; ``rows`` are the bytes of its rows (of its passes if interlaced)."""
    height = 1 if interlaced else len(rows)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = {"IHDR": header, **chunks, "IDAT": pixels, "IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data))
        + (name := kind.encode())
        + data
        + struct.pack(">I", zlib.crc32(name + data))
        for kind, data in parts.items()
    )


def shorts(*numbers: int) -> bytes:
    return struct.pack(f">{len(numbers)}H", *numbers)


# The first pixel has the transparent colour.
CLEAR_GREY = {
    1: (png(1, GREY, [b"\x40"], 3, tRNS=shorts(0)), [255, 255, 255]),
    2: (png(2, GREY, [bytes([0b10011100])], 4, tRNS=shorts(2)), [255, 85, 255, 0]),
    4: (png(4, GREY, [b"\x76\xf0"], 4, tRNS=shorts(7)), [255, 102, 255, 0]),
    8: (png(8, GREY, [b"\x07\x06\x08"], 3, tRNS=shorts(7)), [255, 6, 8]),
    16: (png(16, GREY, [shorts(1542, 1541, 0, 65535)], 4, tRNS=shorts(1542)), [255, 6, 0, 255]),
}


def pixels_of(content: bytes, path: Path) -> list[list[int]]:
    """Return the pixels of the only row of an image file, read by its name and as PIL's image."""
    path.write_bytes(content)
    found = read_image(path, 100)
    with Image.open(path) as image:
        for _ in range(2):  # not decoded yet, and decoded
            np.testing.assert_array_equal(as_rgb(image), found)
    return found[0].tolist()


@pytest.mark.parametrize("depth", CLEAR_GREY)
def test_the_transparent_grey_of_a_png_becomes_white(tmp_path: Path, depth: int):
    content, expected = CLEAR_GREY[depth]
    assert pixels_of(content, tmp_path / "grey.png") == [[grey] * 3 for grey in expected]


@pytest.mark.parametrize("depth", [2, 4])
def test_greys_of_a_png_without_a_transparent_one_are_unchanged(tmp_path: Path, depth: int):
    content, _ = CLEAR_GREY[depth]
    at = content.index(b"tRNS") - 4
    opaque = content[:at] + content[at + 14 :]
    greys = {2: [170, 85, 255, 0], 4: [119, 102, 255, 0]}[depth]
    assert pixels_of(opaque, tmp_path / "grey.png") == [[grey] * 3 for grey in greys]


@pytest.mark.parametrize("interlaced", [False, True])
def test_the_transparent_colour_of_a_48_bit_png_becomes_white(tmp_path: Path, interlaced: bool):
    """A colour that differs in the second byte of a value only is not the transparent one."""
    first, second, third = shorts(258, 772, 774), shorts(258, 773, 774), shorts(0xFFFF, 0, 0x80FF)
    rows = [first, third, second] if interlaced else [first + second + third]  # Adam7's passes
    content = png(16, RGB, rows, 3, interlaced=interlaced, tRNS=shorts(258, 772, 774))
    expected = [[255, 255, 255], [1, 3, 3], [255, 0, 128]]
    assert pixels_of(content, tmp_path / "deep.png") == expected


def test_other_transparent_pngs_are_put_on_white(tmp_path: Path):
    colours = bytes([255, 0, 0, 0, 255, 0, 0, 0, 255])
    palette = png(2, PALETTE, [bytes([0b00011000])], 3, PLTE=colours, tRNS=bytes([255, 0, 128]))
    expected = [[255, 0, 0], [255, 255, 255], [127, 127, 255]]
    assert pixels_of(palette, tmp_path / "palette.png") == expected
    one_clear = png(2, PALETTE, [bytes([0b00011000])], 3, PLTE=colours, tRNS=bytes([255, 0]))
    expected[2] = [0, 0, 255]
    assert pixels_of(one_clear, tmp_path / "one.png") == expected
    rgb = png(8, RGB, [bytes([1, 2, 3, 1, 2, 4])], 2, tRNS=shorts(1, 2, 3))
    assert pixels_of(rgb, tmp_path / "rgb.png") == [[255, 255, 255], [1, 2, 4]]
    grey_alpha = png(16, GREY_ALPHA, [shorts(2570, 65535, 2570, 0)], 2)
    assert pixels_of(grey_alpha, tmp_path / "alpha.png") == [[10, 10, 10], [255, 255, 255]]


def test_a_48_bit_png_that_ends_too_early_is_an_error(tmp_path: Path):
    rows = [np.random.default_rng(0).bytes(6 * 50) for _ in range(50)]
    content = png(16, RGB, rows, 50, tRNS=shorts(1, 2, 3))
    (tmp_path / "half.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="truncated"):
        read_image(tmp_path / "half.png", 100)
