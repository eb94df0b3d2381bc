"""Read an image file of any size and format as an array."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
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
MAX_PIXELS = 178_956_970  # Pillow refuses to open larger images
MAX_BYTES = (
    2**30
)  # an image of so many pixels with 16 bits for each colour; Pillow may read a whole file at first
ORIENTATION = 0x0112  # the EXIF tag for the orientation of the camera


@cache
def image_formats() -> tuple[str, ...]:
    """Return Pillow's names of the formats that are read. Some builds of Pillow lack some."""
    from PIL import Image

    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@cache
def image_extensions() -> frozenset[str]:
    """Return the extensions of the formats that are read: lower case, with the dot."""
    from PIL import Image

    known = Image.registered_extensions()
    return frozenset(extension for extension, name in known.items() if name in image_formats())


def is_image(name: str) -> bool:
    """Return whether ``name`` has an image extension and is not hidden."""
    _, dot, extension = name.rpartition(".")
    return not name.startswith(".") and dot + extension.lower() in image_extensions()


class UnreadableImageError(Exception):
    """A file that cannot be read as an image; the message is the reason, in a few words."""


@contextmanager
def open_image(path: AnyPath) -> Iterator["Image"]:
    """Yield the decoded image of a regular file in one of `FORMATS`. All image files are opened here.

    Raises UnreadableImageError for any other file, for a damaged one, and for an error within the block.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with open_regular(path) as file:
            if (size := os.fstat(file.fileno()).st_size) > MAX_BYTES:
                raise ValueError(f"{size:,} bytes are too many for an image")
            with Image.open(file, formats=image_formats()) as image:
                image.load()
                yield image
    except MemoryError:
        raise
    except UnidentifiedImageError as error:
        raise UnreadableImageError("not an image, or damaged, or in another format") from error
    except Exception as error:  # Pillow raises almost any exception for damaged files
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UnreadableImageError(reason.partition("\n")[0] or type(error).__name__) from error


def read_image(path: Path, longest_side: int) -> NDArray[np.uint8]:
    """Return an image file as uint8 (height, width, 3), downsampled so that no side exceeds ``longest_side`` pixels.

    The image is turned upright and converted to RGB as by `to_square`. Raises UserError for a missing or unreadable
    file.
    """
    from PIL.Image import Resampling

    try:
        with open_image(path) as image:
            picture = _to_rgb(_upright(image))
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
    the middle of the longer side. An animation gives its first frame. An RGB image of that size is unchanged.

    Raises ValueError for a mode that cannot be converted to RGB, and for an image that would fill the memory.
    """
    from PIL import Image

    image = _to_rgb(_upright(image))
    width, height = image.size
    if min(width, height) != image_size:
        scale = image_size / min(width, height)
        width, height = (max(image_size, round(side * scale)) for side in (width, height))
        # A file of a few kilobytes can have 1 x 1,000,000 pixels, which is below Pillow's own limit.
        if width * height > MAX_PIXELS:
            raise ValueError(f"it would have {width} x {height} pixels at this size")
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    if (width, height) != (image_size, image_size):
        left, top = (width - image_size) // 2, (height - image_size) // 2
        image = image.crop((left, top, left + image_size, top + image_size))
    return np.asarray(image)


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

    if image.mode.startswith("I"):
        # Pillow would clip at 255, and a 16-bit image would be almost white.
        grey = np.asarray(image).astype(np.int64)
        if grey.min() < 0 or grey.max() > 65535:
            raise ValueError("grey values outside of 16 bits")
        return Image.fromarray(((grey + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("grey values without a range")
    if "transparency" in image.info or image.mode in ("P", "PA", "LA", "La", "RGBA", "RGBa"):
        image = image.convert("LA") if image.mode == "La" else image
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")
