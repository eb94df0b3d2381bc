"""Sheets of images: the pixels, the names above the images, the captions below them, and no matplotlib."""

import numpy as np
import pytest
from conftest import python, random_dataset
from PIL import Image

from common.drawing import image_grid

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
LINE = image_grid.TEXT_SIZE + image_grid.LEADING


def plain(colour, height=20, width=40):
    return np.full((height, width, 3), colour, np.uint8)


def picture(path):
    return np.asarray(Image.open(path).convert("RGB"))


def box(found, colour):
    """Return top, bottom, left and right of a colour; bottom and right are exclusive."""
    where = np.argwhere((found == colour).all(-1))
    (top, left), (bottom, right) = where.min(0), where.max(0) + 1
    return top, bottom, left, right


def dark(pixels):
    """Return the number of pixels with ink of a text."""
    return int((pixels.max(-1) < 128).sum())


def test_images_fill_the_grid_row_by_row_and_empty_cells_are_white(tmp_path):
    colours = [plain(colour, 30, 30) for colour in (RED, GREEN, BLUE)]
    image_grid.save_sheet(tmp_path / "sheet.png", colours, 2, 2, "t", scale=0.5)
    found = picture(tmp_path / "sheet.png")
    where = {
        colour: np.argwhere((found == colour).all(-1)).mean(0) for colour in (RED, GREEN, BLUE)
    }
    assert where[RED][0] == where[GREEN][0] < where[BLUE][0]
    assert where[RED][1] == where[BLUE][1] < where[GREEN][1]
    row, column = where[BLUE][0], where[GREEN][1]
    assert tuple(found[int(row), int(column)]) == (255, 255, 255)


def test_a_small_image_is_enlarged_pixel_by_pixel(tmp_path):
    image = random_dataset(1, size=5).images[0]
    image_grid.save_sheet(tmp_path / "sheet.png", [image], 1, 1, "t", scale=1.0)
    found = picture(tmp_path / "sheet.png")
    cell = found[-150 - image_grid.MARGIN : -image_grid.MARGIN]  # one inch, above the margin
    inside = [c for c in np.unique(cell.reshape(-1, 3), axis=0).tolist() if c != [255] * 3]
    assert sorted(inside) == sorted(np.unique(image.reshape(-1, 3), axis=0).tolist())


@pytest.mark.parametrize("shape", [(10, 40), (40, 10), (2, 64), (64, 2)])
def test_images_keep_their_aspect_ratio(tmp_path, shape):
    image_grid.save_sheet(tmp_path / "sheet.png", [plain(RED, *shape)], 1, 1, "t")
    where = np.argwhere((picture(tmp_path / "sheet.png") == RED).all(-1))
    height, width = where.max(0) - where.min(0) + 1
    assert width / height == pytest.approx(shape[1] / shape[0], rel=0.1)


def test_names_are_above_their_images_in_several_lines_and_in_any_script(tmp_path):
    images = [plain(RED), plain(GREEN)]
    names = ["cat\nкот", "a\udcffb"]  # the second is from a file name that is not Unicode
    image_grid.save_sheet(tmp_path / "with.png", images, 1, 2, "t", names=names)
    image_grid.save_sheet(tmp_path / "without.png", images, 1, 2, "t")
    with_names, without = picture(tmp_path / "with.png"), picture(tmp_path / "without.png")
    assert len(with_names) - len(without) == 2 * LINE
    strip = with_names[image_grid.TITLE_SIZE + 2 * image_grid.MARGIN :][: 2 * image_grid.TEXT_SIZE]
    left, right = np.array_split(strip, 2, axis=1)
    assert left.min() < 50
    assert right.min() < 50


def test_a_name_wider_than_its_cell_is_truncated(tmp_path):
    font = image_grid.load_font(image_grid.TEXT_SIZE)
    short = image_grid.shortened("n" * 100, font, 120)
    assert short.endswith("…")
    assert font.getlength(short) <= 120 < font.getlength(short[:-1] + "nn…")
    assert image_grid.shortened("frog", font, 120) == "frog"


def test_captions_are_below_their_images_line_by_line(tmp_path):
    images = [plain(colour, 60, 90) for colour in (RED, GREEN, BLUE)]
    lines = ["mirrored\nbox 9 × 8", "", "hue"]
    image_grid.save_sheet(tmp_path / "sheet.png", images, 2, 2, "t", scale=1.0, captions=lines)
    found = picture(tmp_path / "sheet.png")
    ink = {}
    for colour in (RED, GREEN, BLUE):
        _, bottom, left, right = box(found, colour)
        below = found[bottom : bottom + 2 * LINE + image_grid.GAP, left:right]
        ink[colour] = [dark(half) for half in np.split(below, [LINE + 2])][:2]
    assert min(ink[RED]) > 50
    assert ink[GREEN] == [0, 0]
    assert ink[BLUE][0] > 50
    assert ink[BLUE][1] == 0
    # Closer to its own image than to the one below.
    bottom, next_top = box(found, RED)[1], box(found, BLUE)[0]
    inked = np.flatnonzero((found[bottom:next_top].max(-1) < 128).any(1))
    assert inked[0] < next_top - bottom - 1 - inked[-1]


def test_a_caption_wider_than_its_cell_is_truncated_and_does_not_touch_the_next(tmp_path):
    images = [plain(RED), plain(GREEN)]
    image_grid.save_sheet(tmp_path / "sheet.png", images, 1, 2, "", 1.0, captions=["n" * 100, ""])
    found = picture(tmp_path / "sheet.png")
    _, bottom, left, right = box(found, RED)
    assert dark(found[bottom:]) == dark(found[bottom:, left:right]) > 200


def test_a_sheet_can_have_names_and_captions(tmp_path):
    for name, texts in {"both": ["a\nb"], "neither": None}.items():
        path = tmp_path / f"{name}.png"
        image_grid.save_sheet(path, [plain(RED)], 1, 1, "t", names=texts, captions=texts)
    both, neither = picture(tmp_path / "both.png"), picture(tmp_path / "neither.png")
    assert len(both) - len(neither) == 4 * LINE
    top, bottom, *_ = box(both, RED)
    assert dark(both[top - 2 * LINE : top]) == dark(both[bottom : bottom + 2 * LINE + 4]) > 30


def test_images_of_different_shapes_are_aligned_at_the_bottom_and_fill_the_width_of_their_cells(
    tmp_path,
):
    images = [plain(RED, 20, 40), plain(GREEN, 40, 40), plain(BLUE, 40, 20)]
    image_grid.save_sheet(tmp_path / "sheet.png", images, 1, 3, "t", scale=1.0)
    found = picture(tmp_path / "sheet.png")
    (_, red, *wide), (_, green, *square), (_, blue, *high) = (
        box(found, colour) for colour in (RED, GREEN, BLUE)
    )
    assert red == green == blue == len(found) - image_grid.MARGIN
    assert [right - left for left, right in (wide, square, high)] == [150, 150, 150]


def test_a_title_is_wrapped_at_the_width_of_the_grid(tmp_path):
    images = [plain(RED)] * 2
    for name, title in {"short": "wide", "long": "wide " * 20, "lines": "wide\nwide"}.items():
        image_grid.save_sheet(tmp_path / f"{name}.png", images, 1, 2, title)
    short, long, lines = (picture(tmp_path / f"{n}.png") for n in ("short", "long", "lines"))
    line = image_grid.TITLE_SIZE + image_grid.LEADING
    assert long.shape[1] == short.shape[1]
    assert (len(long) - len(short)) % line == 0
    assert len(lines) - len(short) == line
    # The ink of all twenty words, up to the position of a glyph between two pixels.
    assert dark(long) == pytest.approx(20 * dark(short), rel=0.1)
    assert dark(lines) == 2 * dark(short)


def test_a_word_wider_than_the_grid_is_not_cut(tmp_path):
    image_grid.save_sheet(tmp_path / "sheet.png", [plain(RED)], 1, 1, "wide" * 20, scale=0.5)
    found = picture(tmp_path / "sheet.png")
    assert (found[:, : image_grid.MARGIN - 1] == 255).all()
    assert (found[:, 1 - image_grid.MARGIN :] == 255).all()
    assert found.shape[1] > 800


@pytest.mark.parametrize("sign", "×°±…")
def test_the_font_has_the_characters_of_captions(sign):
    font = image_grid.load_font(image_grid.TEXT_SIZE)
    assert bytes(font.getmask(sign)) != bytes(font.getmask("\uffff"))


def test_the_same_sheet_gives_the_same_file(tmp_path):
    for name in ("a.png", "b.png"):
        image_grid.save_sheet(tmp_path / name, list(random_dataset(3).images), 1, 3, "three")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_sheet_is_drawn_without_matplotlib(tmp_path):
    script = (
        "import sys, numpy, pathlib; from common.drawing.image_grid import save_sheet;"
        f"save_sheet(pathlib.Path({str(tmp_path / 's.png')!r}), [numpy.zeros((8, 8, 3), 'uint8')], 1, 1, 't');"
        "print('matplotlib' in sys.modules)"
    )
    assert python(script).stdout == "False\n"
