"""One image file, of any size and kind, as pixels."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

# What Pillow lists as images but cannot decode by itself: containers, and programs (PostScript).
NOT_IMAGES = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
MAX_PIXELS = 178_956_970  # from which Pillow refuses to open an image
ORIENTATION = 0x0112  # the EXIF tag that says how the camera was held


@cache
def image_extensions() -> frozenset[str]:
    """Return the extensions of image files that Pillow can decode: lower case, with the dot."""
    from PIL import Image

    Image.preinit()  # the common kinds first: `open` asks them in this order, 30 more come below
    known = Image.registered_extensions()
    return frozenset(e for e, kind in known.items() if kind in Image.OPEN.keys() - NOT_IMAGES)


def is_image(name: str) -> bool:
    """Return whether a file called ``name`` is an image by its extension, and not hidden."""
    _, dot, extension = name.rpartition(".")
    return not name.startswith(".") and dot + extension.lower() in image_extensions()


def read_image(path: Path, longest_side: int) -> NDArray[np.uint8]:
    """Return an image file as uint8 (height, width, 3), shrunk until no side is over ``longest_side`` pixels.

    Upright and in RGB as `to_square` says. Raises UserError for a file that is missing or cannot be read.
    """
    from PIL import Image

    if not path.is_file():
        raise UserError(f"there is no image {path}: give --image an image file")
    try:
        with Image.open(path) as image:
            image.load()
            picture = _to_rgb(_upright(image))
    except Exception as error:  # damaged files make Pillow's decoders raise almost anything
        reason = str(error).partition("\n")[0].replace(str(path), "it")
        raise UserError(f"cannot read the image {path} ({reason}): give another --image") from error
    picture.thumbnail((longest_side, longest_side), Image.Resampling.BILINEAR)
    return np.asarray(picture)


def as_rgb(image: Any) -> NDArray[np.uint8]:
    """Return a PIL image of any kind, or a uint8 array (height, width, 3), as such an array.

    Raises TypeError for any other array: floats in 0..1 would turn black without a word.
    """
    if hasattr(image, "getbands"):
        image = _to_rgb(image)
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise TypeError(f"an image is uint8 (height, width, 3), not {array.dtype} {array.shape}")
    return array


def to_square(image: "Image", image_size: int) -> NDArray[np.uint8]:
    """Return ``image`` as uint8 (image_size, image_size, 3), RGB.

    In this order: turned as its EXIF orientation says; 16-bit grey scaled to 8 bits; composited on
    white where it has transparency; converted to RGB as Pillow does it, without colour profiles;
    the shorter side resized to ``image_size`` (bilinear, antialiased) and the middle of the longer
    one cut out. Of an animation the first picture counts. An RGB image of that size is unchanged.
    Raises ValueError for a mode that has no RGB meaning, and for a strip so long that it would fill the memory.
    """
    from PIL import Image

    image = _to_rgb(_upright(image))
    width, height = image.size
    if min(width, height) != image_size:
        scale = image_size / min(width, height)
        width, height = (max(image_size, round(side * scale)) for side in (width, height))
        # A file of a few kilobytes can be 1 x 1,000,000 pixels, which Pillow's own limit lets pass.
        if width * height > MAX_PIXELS:
            raise ValueError(f"it would have {width} x {height} pixels at this size")
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    if (width, height) != (image_size, image_size):
        left, top = (width - image_size) // 2, (height - image_size) // 2
        image = image.crop((left, top, left + image_size, top + image_size))
    return np.asarray(image)


def _upright(image: "Image") -> "Image":
    """Turn and mirror ``image`` as its EXIF orientation, 1..8, asks for."""
    from PIL.Image import Transpose

    try:
        orientation = image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged EXIF data are common, and no reason to refuse whole pixels
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
        # Pillow would clip at 255: almost all of a 16-bit image would be white.
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
