"""Sheets of images as PNG files, drawn with Pillow.

Eight sheets of `run.py augment` take 0.2 s of CPU time, and they are drawn before each training. matplotlib needs
2.4 s, including 0.7 s for its import.
"""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from math import ceil
from pathlib import Path
from textwrap import wrap

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from common.datasets.images import open_image
from common.errors import printable
from common.system.files import atomic_write

Images = NDArray[np.uint8]

PIXELS_PER_INCH = 150
GAP, MARGIN = 8, 12  # pixels
TITLE_SIZE, TEXT_SIZE = 20, 15  # pixels
LEADING = 4  # pixels between two lines of text
HEADING = "lightgray"  # behind the heading of a sheet among others
COMPRESSION = 2  # of PNG; with the usual 6, the chapter's eight sheets take half a second longer


def save_sheet(
    path: Path,
    images: Sequence[Images],
    num_rows: int,
    num_cols: int,
    title: str,
    scale: float = 1.5,
    names: Sequence[str] | None = None,
    captions: Sequence[str] | None = None,
) -> None:
    """Write a titled grid of images, uint8 (height, width, 3), as a PNG file.

    ``scale`` is the width of a cell in inches of 150 pixels. An image is resized to fit its cell and keeps its aspect
    ratio. ``names`` are above the images, ``captions`` below. Both may have several lines; a line that is wider than a
    cell is truncated. The title may also have several lines; they are wrapped at the width of the grid.
    """
    cell = round(scale * PIXELS_PER_INCH)
    tall = max(round(min(max(len(image) / image.shape[1], 0.25), 4.0) * cell) for image in images)
    large, small = load_font(TITLE_SIZE), load_font(TEXT_SIZE)
    grid_width = num_cols * (cell + GAP) - GAP
    title_lines = [
        part
        for line in title.split("\n")
        for part in _wrapped(printable(line, max_length=None), large, grid_width)
    ]
    head = len(title_lines) * (TITLE_SIZE + LEADING) + 2 * MARGIN - LEADING
    above, below = _text_height(names), _text_height(captions)
    gap = (
        2 * GAP if captions else GAP
    )  # so that a caption is closer to its own image than to the next
    row_height = above + tall + below + gap
    title_width = max(ceil(large.getlength(line)) for line in title_lines)
    sheet_width = max(grid_width, title_width) + 2 * MARGIN
    sheet_height = head + num_rows * row_height - gap + MARGIN
    left = (sheet_width - grid_width) // 2
    sheet = Image.new("RGB", (sheet_width, sheet_height), "white")
    pen = ImageDraw.Draw(sheet)
    _write(pen, (sheet_width // 2, MARGIN), title_lines, large)
    for i, image in enumerate(images[: num_rows * num_cols]):
        row, column = divmod(i, num_cols)
        x, y = left + column * (cell + GAP), head + row * row_height
        for texts, top in ((names, y), (captions, y + above + tall + LEADING)):
            if texts:
                lines = [shortened(line, small, cell) for line in texts[i].split("\n")]
                _write(pen, (x + cell // 2, top), lines, small)
        height, width = image.shape[:2]
        share = min(cell / width, tall / height)
        size = max(1, round(width * share)), max(1, round(height * share))
        # NEAREST keeps the pixels of an enlarged image visible. Images are centred at the bottom of their cells.
        filter = Image.Resampling.NEAREST if share > 1 else Image.Resampling.BOX
        tile = Image.fromarray(image).resize(size, filter)
        sheet.paste(tile, (x + (cell - size[0]) // 2, y + above + tall - size[1]))
    with atomic_write(path) as temporary:
        sheet.save(temporary, compress_level=COMPRESSION)


def stack_sheets(path: Path, sheets: Mapping[str, Path]) -> None:
    """Write PNG files below each other into one, each with its heading."""
    font = load_font(TITLE_SIZE)
    pictures: dict[str, Image.Image] = {}
    for heading, file in sheets.items():
        with open_image(file) as opened:
            pictures[heading] = opened.convert("RGB")
    head = TITLE_SIZE + 2 * MARGIN
    width = max(picture.width for picture in pictures.values())
    height = sum(head + picture.height for picture in pictures.values())
    sheet = Image.new("RGB", (width, height), "white")
    pen, y = ImageDraw.Draw(sheet), 0
    for heading, picture in pictures.items():
        pen.rectangle((0, y, width, y + head - MARGIN), HEADING)
        pen.text((MARGIN, y + MARGIN // 2), printable(heading), "black", font)
        sheet.paste(picture, ((width - picture.width) // 2, y + head))
        y += head + picture.height
    with atomic_write(path) as temporary:
        sheet.save(temporary, compress_level=COMPRESSION)


def _text_height(texts: Sequence[str] | None) -> int:
    """Return the height in pixels of the text with the most lines."""
    lines = max((text.count("\n") + 1 for text in texts or ()), default=0)
    return lines * (TEXT_SIZE + LEADING)


def _write(
    pen: ImageDraw.ImageDraw,
    place: tuple[int, int],
    lines: Sequence[str],
    font: ImageFont.FreeTypeFont,
) -> None:
    """Write lines below each other; ``place`` is the top centre."""
    x, y = place
    for line in lines:
        pen.text((x, y), line, "black", font, anchor="ma")
        y += round(font.size) + LEADING


def load_font(size: int) -> ImageFont.FreeTypeFont:
    """Load matplotlib's DejaVu Sans, which covers many scripts, without importing matplotlib."""
    spec = find_spec("matplotlib")
    assert spec is not None
    assert spec.origin is not None
    fonts = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf"
    return ImageFont.truetype(fonts / "DejaVuSans.ttf", size)


def shortened(line: str, font: ImageFont.FreeTypeFont, width: int, keeps_end: bool = False) -> str:
    """Return the line, truncated with an ellipsis if it is wider than ``width`` pixels; its start or end is kept."""
    line = printable(line, max_length=None)
    if font.getlength(line) <= width:
        return line
    while line and font.getlength(line + "…") > width:
        line = line[1:] if keeps_end else line[:-1]
    return f"…{line}" if keeps_end else f"{line}…"


def _wrapped(line: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Wrap a line between words at about ``width`` pixels."""
    letters = int(len(line) * width / max(font.getlength(line), 1))
    return wrap(line, max(letters, 1), break_long_words=False, break_on_hyphens=False) or [""]
