"""Sheets of images: every pixel in its place, names over the images, and no matplotlib."""

import numpy as np
import pytest
from conftest import python, random_dataset
from PIL import Image

from common import sheets

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def plain(colour, height=20, width=40):
    return np.full((height, width, 3), colour, np.uint8)


def picture(path):
    return np.asarray(Image.open(path).convert("RGB"))


def test_a_sheet_has_one_cell_an_image_and_shows_its_pixels(tmp_path):
    colours = [plain(colour) for colour in (RED, GREEN, BLUE)]
    sheets.save_sheet(tmp_path / "sheet.png", colours, 1, 3, "three colours")
    found = picture(tmp_path / "sheet.png")
    for colour in (RED, GREEN, BLUE):
        assert (found == colour).all(-1).mean() > 0.1
    row = found[int(0.8 * len(found))]
    seen = [tuple(pixel) for pixel in row if sorted(pixel) == [0, 0, 255]]
    assert list(dict.fromkeys(seen)) == [RED, GREEN, BLUE]


def test_images_go_row_by_row_and_the_cells_left_over_stay_white(tmp_path):
    colours = [plain(colour, 30, 30) for colour in (RED, GREEN, BLUE)]
    sheets.save_sheet(tmp_path / "sheet.png", colours, 2, 2, "t", scale=0.5)
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
    sheets.save_sheet(tmp_path / "sheet.png", [image], 1, 1, "t", scale=1.0)
    found = picture(tmp_path / "sheet.png")
    cell = found[-150 - 20 : -20, :, :]  # one inch, above gap and margin
    inside = [c for c in np.unique(cell.reshape(-1, 3), axis=0).tolist() if c != [255] * 3]
    assert sorted(inside) == sorted(np.unique(image.reshape(-1, 3), axis=0).tolist())


@pytest.mark.parametrize("shape", [(10, 40), (40, 10), (2, 64), (64, 2)])
def test_images_keep_their_proportions(tmp_path, shape):
    sheets.save_sheet(tmp_path / "sheet.png", [plain(RED, *shape)], 1, 1, "t")
    where = np.argwhere((picture(tmp_path / "sheet.png") == RED).all(-1))
    height, width = where.max(0) - where.min(0) + 1
    assert width / height == pytest.approx(shape[1] / shape[0], rel=0.1)


def test_names_stand_over_their_images_in_several_lines_and_in_any_script(tmp_path):
    images = [plain(RED), plain(GREEN)]
    names = ["cat\nкот", "a\udcffb"]  # the second from a file name that is no Unicode
    sheets.save_sheet(tmp_path / "with.png", images, 1, 2, "t", names=names)
    sheets.save_sheet(tmp_path / "without.png", images, 1, 2, "t")
    with_names, without = picture(tmp_path / "with.png"), picture(tmp_path / "without.png")
    assert len(with_names) - len(without) == 2 * (sheets.NAME_SIZE + 4)
    strip = with_names[sheets.TITLE_SIZE + 2 * sheets.MARGIN :][: 2 * sheets.NAME_SIZE]
    left, right = np.array_split(strip, 2, axis=1)
    assert left.min() < 50
    assert right.min() < 50


def test_a_name_too_long_for_its_cell_is_cut_short(tmp_path):
    font = sheets._font(sheets.NAME_SIZE)
    short = sheets._shortened("n" * 100, font, 120)
    assert short.endswith("…")
    assert font.getlength(short) <= 120 < font.getlength(short[:-1] + "nn…")
    assert sheets._shortened("frog", font, 120) == "frog"


def test_a_title_wider_than_the_grid_is_not_cut(tmp_path):
    sheets.save_sheet(tmp_path / "sheet.png", [plain(RED)], 1, 1, "wide " * 20, scale=0.5)
    found = picture(tmp_path / "sheet.png")
    assert (found[:, 0] == 255).all()
    assert (found[:, -1] == 255).all()
    assert found.shape[1] > 1000


def test_equal_sheets_are_equal_files(tmp_path):
    for name in ("a.png", "b.png"):
        sheets.save_sheet(tmp_path / name, list(random_dataset(3).images), 1, 3, "three")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_sheet_is_drawn_without_matplotlib(tmp_path):
    script = (
        "import sys, numpy, pathlib; from common.sheets import save_sheet;"
        f"save_sheet(pathlib.Path({str(tmp_path / 's.png')!r}), [numpy.zeros((8, 8, 3), 'uint8')], 1, 1, 't');"
        "print('matplotlib' in sys.modules)"
    )
    assert python(script).stdout == "False\n"
