"""Read an image file of any size and format as an array."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from common.datasets import AnyPath
from common.errors import UserError, printable
from common.system.files import open_regular

if TYPE_CHECKING:
    from PIL.Image import Image

# The formats that are read; Pillow itself decodes them. Without this list it opens a file by its content, whatever its
# name is: PostScript starts Ghostscript, and IPTC holds a file of any format. TGA has no signature, so it is last.
FORMATS = (
    *("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "JPEG2000"),
    *("PPM", "DIB", "ICO", "PCX", "PSD", "QOI", "SGI", "TGA"),
)
HEIF_EXTENSIONS = frozenset((".heic", ".heics", ".heif", ".heifs", ".hif"))  # of pillow-heif
MAX_PIXELS = 178_956_970  # Pillow refuses to open larger images
MAX_BYTES = (
    2**30
)  # an image of so many pixels with 16 bits for each colour; Pillow may read a whole file at first
ORIENTATION = 0x0112  # the EXIF tag for the orientation of the camera
GREY_STEPS = {"L;2": 255 // 3, "L;4": 255 // 15}  # of the greys of PNG files with 2 and 4 bits
# A JPEG is decoded at 1/2, 1/4 or 1/8 of its size if its sides remain this many times as long as needed. At 3, the
# pixels of photographs differ from those of full decoding by up to 9 of 255, .4 on average; at 2 by up to 16, .9 on
# average.
MARGIN = 3


@cache
def image_formats() -> tuple[str, ...]:
    """Return Pillow's names of the formats that are read. Some builds of Pillow lack some; pillow-heif adds HEIF."""
    from PIL import Image

    Image.init()
    try:
        import_module("pillow_heif").register_heif_opener()
    except ModuleNotFoundError as error:
        if error.name != "pillow_heif":  # it is installed, but broken
            raise
    return tuple(name for name in ("HEIF", *FORMATS) if name in Image.OPEN)


@cache
def image_extensions() -> frozenset[str]:
    """Return the extensions of the formats that are read: lower case, with the dot."""
    from PIL import Image

    formats = image_formats()  # first: it registers the extensions of pillow-heif
    known = Image.registered_extensions()
    return frozenset(extension for extension, name in known.items() if name in formats)


def is_image(name: str) -> bool:
    """Return whether ``name`` has an image extension and is not hidden."""
    _, dot, extension = name.rpartition(".")
    return not name.startswith(".") and dot + extension.lower() in image_extensions()


class UnreadableImageError(Exception):
    """A file that cannot be read as an image; the message is the reason, in a few words."""


@contextmanager
def open_image(path: AnyPath) -> Iterator["Image"]:
    """Yield the image of a regular file in one of `FORMATS`, not yet decoded. All image files are opened here.

    Raises UnreadableImageError for any other file, and for an error within the block, such as that of a damaged file.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with open_regular(path) as file:
            if (size := os.fstat(file.fileno()).st_size) > MAX_BYTES:
                raise ValueError(f"{size:,} bytes are too many for an image")
            with Image.open(file, formats=image_formats()) as image:
                yield image
    except MemoryError:
        raise
    except UnidentifiedImageError as error:
        raise UnreadableImageError("not an image, or damaged, or in another format") from error
    except Exception as error:  # Pillow raises almost any exception for damaged files
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UnreadableImageError(reason.partition("\n")[0] or type(error).__name__) from error


def _loaded(image: Any) -> "Image":
    """Decode an image in place, if it is not yet. Apply the transparent colour of a PNG file at the file's bit depth.

    Pillow scales grey to 8 bits and drops the second byte of 16-bit colours, but compares them with the file's value.
    """
    from PIL import Image

    clear, tiles = image.info.get("transparency"), getattr(image, "tile", ())
    rawmode = tiles[0][3] if image.format == "PNG" and tiles and clear is not None else ""
    if rawmode in GREY_STEPS:
        image.info["transparency"] = clear * GREY_STEPS[rawmode]
    elif rawmode == "RGB;16B":
        # Pillow keeps the first byte of the two. Read as little-endian, it keeps the second one.
        image.fp.seek(0)
        second: Any = Image.open(image.fp, formats=["PNG"])
        second.tile = [(*tile[:3], "RGB;16L") for tile in tiles]
        low = np.asarray(second, np.uint16)
        image.load()
        differs = (np.asarray(image, np.uint16) << 8 | low) != clear
        image.putalpha(Image.fromarray(differs.any(axis=2).astype(np.uint8) * 255))
    image.load()
    return image


def read_image(path: Path, longest_side: int) -> NDArray[np.uint8]:
    """Return an image file as uint8 (height, width, 3), downsampled so that no side exceeds ``longest_side`` pixels.

    The image is turned upright and converted to RGB as by `to_square`. Raises UserError for a missing or unreadable
    file.
    """
    from PIL.Image import Resampling

    try:
        with open_image(path) as image:
            picture = _to_rgb(_upright(_loaded(image)))
    except UnreadableImageError as error:
        raise UserError(
            f"cannot read the image {printable(str(path), 300)} ({error}): choose another --image"
        ) from error
    picture.thumbnail((longest_side, longest_side), Resampling.BILINEAR)
    return np.asarray(picture)


def as_rgb(image: Any) -> NDArray[np.uint8]:
    """Convert a PIL image of any mode, or a uint8 array (height, width, 3), to such an array.

    Raises TypeError for any other array; float images in 0..1 would silently become black.
    """
    if hasattr(image, "getbands"):
        image = _to_rgb(image)
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise TypeError(
            f"an image must be uint8 (height, width, 3), not {array.dtype} {array.shape}"
        )
    return array


def to_square(image: "Image", image_size: int) -> NDArray[np.uint8]:
    """Convert ``image`` to uint8 (image_size, image_size, 3), RGB.

    Apply the EXIF orientation. Scale 16-bit grey to 8 bits, composite transparent images on white, and convert to RGB
    with Pillow, without colour profiles. Resize the shorter side to ``image_size`` (bilinear, antialiased), and crop
    the middle of the longer side. An animation gives its first frame. An RGB image of that size is unchanged. A large
    JPEG that is not decoded yet is decoded at a reduced size; see `MARGIN`.

    Raises ValueError for a mode that cannot be converted to RGB, and for an image that would fill the memory.
    """
    from PIL.Image import Resampling

    box = _decode(image, MARGIN * image_size)
    if box is not None:  # in the file's orientation, because the box is
        size = _resized(box, image_size)
        image = _to_rgb(image).resize(size, Resampling.BILINEAR, (0, 0, *box))
    image = _to_rgb(_upright(image))
    if min(image.size) != image_size:
        image = image.resize(_resized(image.size, image_size), Resampling.BILINEAR)
    width, height = image.size
    if (width, height) != (image_size, image_size):
        left, top = (width - image_size) // 2, (height - image_size) // 2
        image = image.crop((left, top, left + image_size, top + image_size))
    return np.asarray(image)


def _decode(image: "Image", shortest_side: int) -> tuple[float, float] | None:
    """Decode ``image``, a JPEG at 1/2, 1/4 or 1/8 of its size if no side gets shorter than ``shortest_side``.

    Return the reduced width and height, or None if the image has its full size. The reduced sides may be fractions: the
    last row and column of the decoded image can reach beyond the image.
    """
    drafted = None
    if min(image.size) >= 2 * shortest_side:  # or Pillow would make a draft of the full size
        drafted = image.draft(None, (shortest_side, shortest_side))
    _loaded(image)
    return None if drafted is None else drafted[1][2:]


def _resized(size: tuple[float, float], shorter_side: int) -> tuple[int, int]:
    """Return width and height with the shorter one resized to ``shorter_side``."""
    scale = shorter_side / min(size)
    width, height = (max(shorter_side, round(side * scale)) for side in size)
    # A file of a few kilobytes can have 1 x 1,000,000 pixels, which is below Pillow's own limit.
    if width * height > MAX_PIXELS:
        raise ValueError(f"it would have {width} x {height} pixels at this size")
    return width, height


def _upright(image: "Image") -> "Image":
    """Apply the EXIF orientation, 1..8, of ``image``."""
    from PIL.Image import Transpose

    try:
        orientation = image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged EXIF data are common; the pixels are still valid
        return image
    undo = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    return image.transpose(undo[orientation]) if orientation in undo else image


def _to_rgb(image: "Image") -> "Image":
    from PIL import Image

    image = _loaded(image)
    if image.mode.startswith("I"):
        # Pillow would clip at 255, and a 16-bit image would be almost white.
        grey = np.asarray(image).astype(np.int64)
        if grey.min() < 0 or grey.max() > 65535:
            raise ValueError("grey values outside of 16 bits")
        eight_bits = ((grey + 128) // 257).astype(np.uint8)
        eight_bits[grey == image.info.get("transparency", -1)] = 255
        return Image.fromarray(eight_bits).convert("RGB")
    if image.mode == "F":
        raise ValueError("grey values without a range")
    if "transparency" in image.info or image.mode in ("P", "PA", "LA", "La", "RGBA", "RGBa"):
        image = image.convert("LA") if image.mode == "La" else image
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")
