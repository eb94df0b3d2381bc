"""Gluon's own transforms, with workarounds for their bugs."""

import numpy as onp
from mxnet import image, np
from mxnet.gluon import Block
from mxnet.gluon.data.vision import transforms
from PIL import Image

from common.datasets.images import as_rgb
from common.errors import UserNotice

# Upstream, src/operator/image/image_random-inl.h: `gray =` for `gray +=`.
SATURATION_IS_WRONG = UserNotice(
    "MXNet's own saturation is wrong: it computes grey as 0.114 x blue only, "
    "so colours turn dark; the batched pipeline is right"
)


def to_ndarray(image):
    """Return a NumPy or PIL image as an MXNet array."""
    return np.array(as_rgb(image), dtype=onp.uint8)


class RandomFlip(Block):
    """Gluon's flip where it is correct: for even sizes and p = 0.5.

    For odd sizes, Gluon's flip leaves the middle line uninitialised. It has no
    argument for the probability.
    """

    def __init__(self, flip, axis, p):
        super().__init__()
        self.flip, self.axis, self.p = flip, axis, p

    def forward(self, x):
        if self.p == 0.5 and x.shape[self.axis] % 2 == 0:
            return self.flip(x)
        flips = np.random.uniform() < self.p
        return np.where(flips, np.flip(x, self.axis), x)


class RandomColorJitter(Block):
    """Gluon's four colour transforms, in an order drawn for each image.

    Its own RandomColorJitter reads past the end of a table when a hue rounds
    up to a full turn, and the process crashes (upstream issue 18986).
    RandomHue does not. If all four strengths are 0, RandomColorJitter leaves
    its output uninitialised.
    """

    def __init__(self, aug):
        super().__init__()
        changes = {
            transforms.RandomBrightness: aug.brightness,
            transforms.RandomContrast: aug.contrast,
            transforms.RandomSaturation: aug.saturation,
            transforms.RandomHue: aug.hue,
        }
        self.changes = [kind(most) for kind, most in changes.items() if most]

    def forward(self, x):
        order = np.random.uniform(size=len(self.changes)).argsort()
        for i in order.asnumpy().astype(int):
            x = self.changes[i](x)
        return x


class Resize(Block):
    """Gluon's resize where it is correct: if neither side shrinks.

    Differs: if a side shrinks, Gluon's resize skips pixels. Pillow resizes
    then, antialiased as in the other backends.
    """

    def __init__(self, size):
        super().__init__()
        self.height, self.width = size
        self.resize = transforms.Resize((self.width, self.height))

    def forward(self, x):
        height, width, _ = x.shape
        if height <= self.height and width <= self.width:
            return self.resize(x)
        picture = Image.fromarray(x.asnumpy())
        picture = picture.resize(
            (self.width, self.height), Image.Resampling.BILINEAR
        )
        return to_ndarray(picture)


class RandomResizedCrop(Block):
    """Gluon's random crop, resized with antialiasing.

    Gluon draws the box from Python's `random`. Differs: mx.image also resizes
    the crop, without antialiasing; this result is dropped.
    """

    def __init__(self, size, scale, ratio):
        super().__init__()
        height, width = size
        self.arguments = (width, height), scale, ratio
        self.resize = Resize(size)

    def forward(self, x):
        _, box = image.random_size_crop(x, *self.arguments)
        left, top, width, height = box
        return self.resize(x[top : top + height, left : left + width])
