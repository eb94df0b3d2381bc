"""Gluon's own transforms, with workarounds for their bugs."""

import random

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
    """The box of Gluon's random crop, resized with antialiasing.

    Draws it from Python's `random`, as mx.image.random_size_crop does.
    Differs: that function also resizes the crop, without antialiasing. If the
    box is empty, as in a picture of 40 x 1 pixels, it ends in OpenCV's error.
    """

    def __init__(self, size, scale, ratio):
        super().__init__()
        height, width = size
        self.size, self.scale, self.ratio = (width, height), scale, ratio
        self.resize = Resize(size)

    def forward(self, x):
        left, top, width, height = self.draw(x.shape[1], x.shape[0])
        return self.resize(x[top : top + height, left : left + width])

    def draw(self, full_width, full_height):
        """Return the first of ten boxes that fits, or one in the middle."""
        low, high = onp.log(self.ratio)
        for _ in range(10):
            area = random.uniform(*self.scale) * full_width * full_height
            ratio = onp.exp(random.uniform(low, high))
            width = round(onp.sqrt(area * ratio))
            height = round(onp.sqrt(area / ratio))
            if 0 < width <= full_width and 0 < height <= full_height:
                left = random.randint(0, full_width - width)
                top = random.randint(0, full_height - height)
                return left, top, width, height
        sides = image.scale_down((full_width, full_height), self.size)
        width, height = (max(side, 1) for side in sides)
        left, top = (full_width - width) // 2, (full_height - height) // 2
        return left, top, width, height
