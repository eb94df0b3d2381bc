"""One image file, of any size and kind, as pixels."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.datasets.folder import _to_rgb, _upright
from common.errors import UserError


def read_image(path: Path, longest_side: int) -> NDArray[np.uint8]:
    """Return an image file as uint8 (height, width, 3), shrunk until no side is over ``longest_side`` pixels.

    Raises UserError for a file that is missing or cannot be read.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
            picture = _to_rgb(_upright(image))
    except FileNotFoundError:
        raise UserError(f"no image at {path}: give --image an image file") from None
    except Exception as error:  # damaged files make Pillow's decoders raise almost anything
        raise UserError(f"cannot read {path} as an image ({error}): give another --image") from error
    picture.thumbnail((longest_side, longest_side), Image.Resampling.BILINEAR)
    return np.asarray(picture)
