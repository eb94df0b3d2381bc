"""Sheets of images as PNG files, drawn by Pillow: a training should not wait for matplotlib, which takes seconds."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from common.files import written_whole

Images = NDArray[np.uint8]

PIXELS_PER_INCH = 150
GAP, MARGIN = 8, 12  # pixels
TITLE_SIZE, NAME_SIZE = 25, 15  # pixels
COMPRESSION = 2  # of PNG; at the usual 6 the chapter's eight sheets take half a second more


def save_sheet(
    path: Path,
    images: Sequence[Images],
    num_rows: int,
    num_cols: int,
    title: str,
    scale: float = 1.5,
    names: Sequence[str] | None = None,
) -> None:
    """Write a titled grid of images, uint8 (height, width, 3), as a PNG file.

    ``scale`` is the width of a cell in inches of 150 pixels; an image fills its cell, in its own proportions.
    ``names`` stand over the images, and may have several lines; what is wider than a cell is cut short.
    """
    height, width = images[0].shape[:2]
    cell = round(scale * PIXELS_PER_INCH)
    tall = round(min(max(height / width, 0.25), 4.0) * cell)
    large, small = _font(TITLE_SIZE), _font(NAME_SIZE)
    lines = max((name.count("\n") + 1 for name in names or ()), default=0)
    above = lines * (NAME_SIZE + 4)
    head = TITLE_SIZE + 2 * MARGIN
    title_width = round(large.getlength(_drawable(title)))
    grid_width = num_cols * (cell + GAP) - GAP
    sheet_width = max(grid_width, title_width) + 2 * MARGIN
    left = (sheet_width - grid_width) // 2
    sheet = Image.new(
        "RGB", (sheet_width, head + num_rows * (tall + above + GAP) + MARGIN), "white"
    )
    pen = ImageDraw.Draw(sheet)
    pen.text((sheet_width // 2, MARGIN), _drawable(title), "black", large, anchor="ma")
    for i, image in enumerate(images[: num_rows * num_cols]):
        row, column = divmod(i, num_cols)
        x, y = left + column * (cell + GAP), head + row * (tall + above + GAP)
        if names:
            text = "\n".join(_shortened(line, small, cell) for line in names[i].split("\n"))
            pen.multiline_text(
                (x + cell // 2, y), text, "black", small, anchor="ma", align="center"
            )
        sheet.paste(*_fitted(image, (cell, tall), (x, y + above)))
    with written_whole(path) as temporary:
        sheet.save(temporary, compress_level=COMPRESSION)


def _fitted(
    image: Images, size: tuple[int, int], corner: tuple[int, int]
) -> tuple[Image.Image, tuple[int, int]]:
    """Return an image as large as fits into a cell, and where it goes to lie in its middle."""
    height, width = image.shape[:2]
    share = min(size[0] / width, size[1] / height)
    fitted = max(1, round(width * share)), max(1, round(height * share))
    # What is enlarged keeps its pixels in sight.
    filter = Image.Resampling.NEAREST if share > 1 else Image.Resampling.BOX
    place = corner[0] + (size[0] - fitted[0]) // 2, corner[1] + (size[1] - fitted[1]) // 2
    return Image.fromarray(image).resize(fitted, filter), place


def _font(size: int) -> ImageFont.FreeTypeFont:
    """Return matplotlib's DejaVu Sans, which knows many scripts, found without importing matplotlib."""
    spec = find_spec("matplotlib")
    assert spec is not None
    assert spec.origin is not None
    fonts = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf"
    return ImageFont.truetype(fonts / "DejaVuSans.ttf", size)


def _shortened(line: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """Return a line that is no wider than ``width`` pixels, its end cut off for an ellipsis where it must be."""
    line = _drawable(line)
    if font.getlength(line) <= width:
        return line
    while line and font.getlength(line + "…") > width:
        line = line[:-1]
    return line + "…"


def _drawable(text: str) -> str:
    """Return a text without what no font can be asked for: the stand-ins for bytes of names that are no Unicode."""
    return text.encode("utf-8", "replace").decode()
