"""JPEG files that are decoded at a reduced size: which ones, how much their pixels change, and damaged ones."""

from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from common.datasets.decoding import decode_into
from common.datasets.images import MARGIN, to_square

PHOTOS = {
    name: Path(str(files("skimage"))) / "data" / name for name in ("chelsea.png", "coffee.png")
}


def photo(name: str = "chelsea.png", mode: str = "RGB") -> Image.Image:
    """Return a photograph: a cat of 451 x 300, or a cup of coffee of 600 x 400."""
    with Image.open(PHOTOS[name]) as image:
        return image.convert(mode)


def noise(width: int = 400, height: int = 300) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def jpeg(image: Image.Image, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, "JPEG", quality=90, **options)
    return file.getvalue()


def reduced(content: bytes, image_size: int, scale: int) -> np.ndarray:
    """Return the pixels of `to_square`, after a check of the size at which it decoded the file."""
    with Image.open(BytesIO(content)) as image:
        full = image.size
        pixels = to_square(image, image_size)
        assert image.size == tuple(-(-side // scale) for side in full)
    return pixels


def in_full(content: bytes, image_size: int) -> np.ndarray:
    """Return the pixels without a reduced size: `to_square` cannot reduce what has been decoded."""
    with Image.open(BytesIO(content)) as image:
        image.load()
        return to_square(image, image_size)


def difference(content: bytes, image_size: int, scale: int) -> np.ndarray:
    full = in_full(content, image_size)
    return np.abs(reduced(content, image_size, scale) - full.astype(int))


@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}], ids=str)
@pytest.mark.parametrize("name", PHOTOS)
def test_a_photograph_changes_little(name: str, options: dict[str, Any], scale: int):
    """The bounds are those of 13 photographs, in 3 scales and with 2 samplings of the colours: 9, and .64 on average.

    MARGIN says the mean of all. Pillow's own margin of 2 would have changed them by up to 16, and 1.75.
    """
    image = photo(name)
    change = difference(jpeg(image, **options), min(image.size) // (MARGIN * scale), scale)
    assert change.max() <= 9
    assert change.mean() <= 0.65


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_noise_changes_more(scale: int):
    """The worst case, which no photograph is; measured: up to 8, and 1.3 on average, at 1/2."""
    change = difference(jpeg(noise(), subsampling=0), 300 // (MARGIN * scale), scale)
    assert change.max() <= 9
    assert change.mean() <= 1.4


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_change_little(mode: str):
    change = difference(jpeg(photo(mode=mode)), 25, 4)
    assert change.max() <= 9
    assert change.mean() <= 0.65


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_is_applied_after_the_reduction(orientation: int):
    """The sides, 393 and 301, are no multiples of 4, so the file's last row and column reach beyond the image."""
    image, exif = noise(393, 301), Image.Exif()
    exif[0x0112] = orientation
    plain, turned = reduced(jpeg(image), 25, 4), reduced(jpeg(image, exif=exif), 25, 4)
    shown = Image.fromarray(plain)
    shown.getexif()[0x0112] = orientation
    np.testing.assert_array_equal(turned, np.asarray(ImageOps.exif_transpose(shown)))
    assert (orientation == 1) == np.array_equal(turned, plain)


@pytest.mark.parametrize("extra", range(1, 8))
def test_sides_that_are_no_multiples_of_8_shift_nothing(extra: int):
    """A ramp of 8 bits from edge to edge: stretched to whole blocks, its end would be off by up to 8."""
    side = 240 + extra
    ramp = np.linspace(0, 255, side).round().astype(np.uint8)
    pixels = np.stack(
        [*np.broadcast_arrays(ramp[:, None], ramp), np.full((side, side), 128)], axis=2
    )
    change = difference(jpeg(Image.fromarray(pixels.astype(np.uint8)), subsampling=0), 10, 8)
    assert change.max() <= 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_less_than_twice_as_large_as_needed_is_unchanged(orientation: int):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = jpeg(noise(), exif=exif)
    np.testing.assert_array_equal(reduced(content, 51, 1), in_full(content, 51))
    assert difference(content, 50, 2).max() > 0


def test_other_formats_are_decoded_in_full(tmp_path: Path):
    for name in ("PNG", "WEBP", "TIFF", "JPEG2000"):
        file = BytesIO()
        photo().save(file, name)
        np.testing.assert_array_equal(reduced(file.getvalue(), 8, 1), in_full(file.getvalue(), 8))


def test_a_jpeg_with_several_pictures_is_reduced():
    file, second = BytesIO(), Image.new("RGB", (451, 300))
    photo().save(file, "MPO", save_all=True, append_images=[second])
    assert difference(file.getvalue(), 25, 4).max() <= 9


def problem(path: Path) -> str | None:
    return decode_into(np.empty((8, 8, 3), np.uint8), path)


@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=["baseline", "progressive"])
def test_a_truncated_file_is_unreadable(tmp_path: Path, options: dict[str, Any]):
    content = jpeg(photo(), **options)
    (tmp_path / "x.jpg").write_bytes(content)
    assert problem(tmp_path / "x.jpg") is None
    (tmp_path / "x.jpg").write_bytes(content[:-400])
    assert "truncated" in str(problem(tmp_path / "x.jpg"))


def test_the_limit_of_pixels_is_that_of_the_full_size(tmp_path: Path):
    """At 1/8, 20,000 x 20,000 pixels would be few enough."""
    content = jpeg(photo())
    place = content.index(b"\xff\xc0") + 5  # height and width
    large = content[:place] + (20_000).to_bytes(2, "big") * 2 + content[place + 4 :]
    (tmp_path / "x.jpg").write_bytes(large)
    assert "400000000 pixels" in str(problem(tmp_path / "x.jpg"))
