"""Ten classes of generated pictures that need no download, for which mirroring is the right augmentation.

Every picture is 32 x 32 RGB: one dark object in two colours on a light, patterned background with two pebbles and some
noise. Position, size, tilt, colours, shading and background are random and independent of the class.

**The two splits differ on purpose.** The objects have a direction: the fish swims, the boot points, the mug has a
handle. All training pictures face right. In the test split, half of each class face left. A network that is trained on
the unchanged training pictures has never seen one that faces left; mirroring with probability one half shows it both.
So the gain from mirroring is built in. It shows *why* such an augmentation helps, but not how much to expect for
photographs: in CIFAR-10 both splits already face both ways.

**The bytes are the same everywhere.** Random numbers are hashes of counters, and all geometry and blending is integer
arithmetic. So neither NumPy's version nor the platform changes a picture. Picture ``i`` depends only on the seed, the
split and ``i``; a larger number of pictures only appends.
"""

from collections.abc import Callable, Iterator
from itertools import count
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from common.augmentation.decisions import random_bits
from common.datasets import Data, Dataset
from common.errors import UserError

Ints: TypeAlias = NDArray[np.int64]
Split: TypeAlias = Literal["train", "test"]
Role: TypeAlias = Literal["body", "accent", "hole"]
Polygon: TypeAlias = tuple[tuple[int, int], ...]
Glyph: TypeAlias = tuple[tuple[Role, Polygon], ...]

SIDE = 32  # height and width of a picture, pixels
UNIT = 64  # positions are integers in 1/64 pixel; coverages and colour weights are in 1/256
_CHUNK = 200  # pictures drawn together; limits the memory to about 40 MB
_SCAN = np.arange(SIDE * 4, dtype=np.int64) * 16 + 8  # four scan lines per pixel row, 1/64 pixel


class Pose(NamedTuple):
    """The objects and their poses, one array of shape (n,) per quantity."""

    label: Ints  # index into CLASSES
    left: NDArray[np.bool_]  # True if the object faces left
    tilt: Ints  # rotated by 2 arctan(tilt / 64)
    size: Ints  # side of the glyph's square, in quarter pixels
    x: Ints  # centre of that square, 1/64 pixel
    y: Ints


# ---------------------------------------------------------------------------------------------
# The drawings, facing right, in a square from -32 to 32 with y pointing down. Later layers cover
# earlier ones; a hole shows the background.

# 256 times the cosine of 0, 15, ..., 345 degrees; the sine is the same list, shifted by six.
_FIRST_HALF = (256, 247, 222, 181, 128, 66, 0, -66, -128, -181, -222, -247)
_COSINES = _FIRST_HALF + tuple(-c for c in _FIRST_HALF)


def _oval(x: int, y: int, width: int, height: int) -> Polygon:
    """Return an ellipse around (x, y) as 24 points; ``width`` and ``height`` are its half-axes."""
    return tuple(
        (x + (width * _COSINES[i] + 128) // 256, y + (height * _COSINES[i - 6] + 128) // 256)
        for i in range(24)
    )


def _box(left: int, top: int, right: int, bottom: int) -> Polygon:
    return ((left, top), (right, top), (right, bottom), (left, bottom))


_GLYPHS: dict[str, Glyph] = {
    "arrow": (
        ("body", ((-30, -8), (2, -8), (2, -24), (31, 0), (2, 24), (2, 8), (-30, 8), (-22, 0))),
    ),
    "boot": (
        (
            "body",
            (
                (-20, -31), (4, -31), (5, -4), (9, 5), (22, 9), (29, 16), (30, 24),
                (-20, 24),
            ),
        ),
        ("accent", ((-22, -31), (6, -31), (6, -21), (-22, -21))),
        ("accent", ((-20, 22), (31, 22), (31, 30), (8, 30), (4, 26), (-4, 26), (-6, 30), (-20, 30))),
    ),
    "duck": (
        (
            "body",
            (
                (-31, -8), (-22, -1), (-8, -1), (3, -3), (20, 0), (25, 9), (22, 20), (12, 27),
                (-10, 27), (-22, 20), (-29, 8),
            ),
        ),
        ("accent", ((18, -20), (32, -14), (30, -9), (18, -9))),
        ("body", _oval(12, -15, 11, 11)),
        ("hole", _oval(15, -18, 3, 3)),
        ("accent", ((-16, 6), (8, 6), (4, 16), (-6, 18))),
    ),
    "fish": (
        ("accent", ((-4, -14), (4, -24), (16, -12), (8, 12), (0, 22), (-6, 12))),
        ("body", ((-6, 0), (-32, -19), (-25, 0), (-32, 19))),
        ("body", _oval(8, 0, 24, 15)),
        ("hole", _oval(21, -4, 3, 3)),
    ),
    "flag": (
        (
            "body",
            ((-20, -29), (-6, -25), (10, -29), (31, -25), (22, -11), (31, 3), (10, -1), (-6, 3),
             (-20, -1)),
        ),
        ("accent", ((-20, -19), (-6, -15), (10, -19), (25, -16), (22, -11), (25, -6), (10, -9),
                    (-6, -5), (-20, -9))),
        ("body", _box(-26, -31, -20, 31)),
    ),
    "key": (
        ("body", _oval(-17, 0, 15, 15)),
        ("hole", _oval(-18, 0, 7, 7)),
        ("body", ((-4, -4), (31, -4), (31, 15), (25, 15), (25, 4), (20, 4), (20, 12), (14, 12),
                  (14, 4), (-4, 4))),
    ),
    "mug": (
        ("body", _oval(14, 0, 17, 16)),
        ("hole", _oval(14, 0, 10, 9)),
        ("body", ((-28, -28), (14, -28), (14, 22), (9, 28), (-23, 28), (-28, 22))),
        ("accent", _box(-28, -12, 14, -2)),
    ),
    "sailboat": (
        ("accent", ((-4, -31), (-1, -31), (-1, 14), (-4, 14))),
        ("accent", ((-7, -26), (-7, 9), (-22, 9))),
        ("body", ((2, -30), (14, -14), (28, 9), (2, 9))),
        ("body", ((-28, 14), (32, 14), (20, 28), (-20, 28))),
    ),
    "snail": (
        ("body", ((-32, 28), (-26, 20), (12, 18), (16, -2), (24, -8), (31, -2), (30, 10), (24, 24),
                  (16, 28))),
        ("body", ((20, -4), (16, -18), (19, -19), (24, -4))),
        ("body", ((25, -4), (28, -18), (31, -17), (29, -2))),
        ("accent", _oval(-7, 2, 19, 19)),
        ("body", _oval(-6, 3, 13, 13)),
        ("accent", _oval(-5, 2, 8, 8)),
        ("body", _oval(-4, 2, 3, 3)),
    ),
    "teapot": (
        ("body", _oval(-18, 4, 13, 13)),
        ("hole", _oval(-18, 4, 7, 7)),
        ("body", ((10, 6), (20, -1), (25, -14), (32, -14), (28, 4), (16, 20))),
        ("body", _oval(0, 8, 18, 18)),
        ("body", _box(-10, 20, 10, 28)),
        ("accent", ((-12, -6), (-8, -14), (8, -14), (12, -6))),
        ("accent", _oval(0, -18, 4, 4)),
    ),
}  # fmt: skip
CLASSES = tuple(sorted(_GLYPHS))


# ---------------------------------------------------------------------------------------------
# Random numbers


# The first counter of every hash, so that no two purposes share random numbers.
_LABELS, _FACINGS, _POSES, _COLOURS, _NOISE = range(5)


def _picker(seed: int, purpose: int, split: Split, index: Ints) -> Callable[[int, int], Ints]:
    """Return a function that draws an integer from low to high for each picture; each call draws other numbers."""
    fields = count()

    def pick(low: int, high: int) -> Ints:
        bits = random_bits(seed, purpose, split == "test", next(fields), index)
        span = np.uint64(high - low + 1)
        return low + ((bits >> np.uint64(32)) * span >> np.uint64(32)).astype(np.int64)

    return pick


# ---------------------------------------------------------------------------------------------
# Random choices


def _choose_labels(index: Ints, seed: int, split: Split) -> Ints:
    """Choose labels so that each block of ten pictures has each class once, in random order."""
    block, place = np.divmod(index, len(CLASSES))
    every = np.arange(len(CLASSES))
    bits = random_bits(seed, _LABELS, split == "test", block[:, None], every)
    order = np.argsort(bits, axis=1, kind="stable").astype(np.int64)  # (n, 10)
    label: Ints = order[np.arange(len(index)), place]
    return label


def _choose_facing(index: Ints, label: Ints, seed: int, split: Split) -> NDArray[np.bool_]:
    """Return which pictures face left: no training picture, and one of each class in every 20 test pictures."""
    if split == "train":
        return np.zeros(len(index), dtype=np.bool_)
    pair, second = np.divmod(index // len(CLASSES), 2)
    coin = random_bits(seed, _FACINGS, pair, label) >> np.uint64(63)
    return np.not_equal(coin.astype(np.int64), second)


def _choose_poses(index: Ints, seed: int, split: Split) -> Pose:
    label = _choose_labels(index, seed, split)
    left = _choose_facing(index, label, seed, split)
    pick = _picker(seed, _POSES, split, index)
    middle = SIDE * UNIT // 2
    reach = 5 * UNIT // 2
    return Pose(
        label,
        left,
        tilt=pick(-6, 6),  # up to 11 degrees either way
        size=pick(4 * 21, 4 * 27),
        x=middle + pick(-reach, reach),
        y=middle + pick(-reach, reach),
    )


def choose_poses(n: int, seed: int, split: Split) -> Pose:
    """Return the labels and poses of the first ``n`` pictures of a split.

    Raises UserError for ``n`` below 1.
    """
    _check_count(n)
    return _choose_poses(np.arange(n, dtype=np.int64), seed, split)


# ---------------------------------------------------------------------------------------------
# Drawing


def _cover(x: Ints, y: Ints) -> Ints:
    """Return the coverage of each pixel by a polygon, 0..256, (n, 32, 32), from corners ``x`` and ``y`` (n, corners).

    A scan line enters and leaves the polygon at its edges. Entering adds one to all pixels to the right, and leaving
    subtracts it, so a cumulative sum along the line gives the coverage. It is exact to 1/64 pixel along the line.
    """
    over = y[:, :, None] <= _SCAN  # (n, corners, 128)
    change = np.roll(over, -1, axis=1).astype(np.int64) - over
    picture, corner, line = np.nonzero(change)
    follow = (corner + 1) % x.shape[1]
    x0, y0 = x[picture, corner], y[picture, corner]
    run, rise = x[picture, follow] - x0, y[picture, follow] - y0
    meet = np.clip(x0 + (_SCAN[line] - y0) * run // rise, 0, SIDE * UNIT)
    pixel, part = np.divmod(meet, UNIT)
    # Two extra columns collect the parts right of the picture.
    cell = (picture * SIDE + line // 4) * (SIDE + 2) + pixel
    sign = change[picture, corner, line]
    total = len(x) * SIDE * (SIDE + 2)
    steps = np.bincount(cell, sign * (UNIT - part), total)
    steps += np.bincount(cell + 1, sign * part, total)  # float64, but integers far below 2**53
    sums = np.cumsum(steps.astype(np.int64).reshape(len(x), SIDE, SIDE + 2), axis=2)
    cover: Ints = np.abs(sums[:, :, :SIDE])  # mirroring a polygon reverses its orientation
    return cover


def _place(polygon: Polygon, pose: Pose) -> tuple[Ints, Ints]:
    """Return a glyph's corners in the given poses, in 1/64 pixel: x and y, each (n, corners).

    With t = tilt / 64, the rotation has the cosine (1 - t^2) / (1 + t^2) and the sine 2t / (1 + t^2).
    """
    across, down = np.array(polygon, dtype=np.int64).T  # (corners,)
    across = np.where(pose.left[:, None], -across, across)  # (n, corners)
    tilt, size = pose.tilt[:, None], pose.size[:, None]
    cosine, sine, whole = 64**2 - tilt**2, 2 * 64 * tilt, 64**2 + tilt**2
    x = (across * cosine - down * sine) * size // (4 * whole)
    y = (across * sine + down * cosine) * size // (4 * whole)
    return pose.x[:, None] + x, pose.y[:, None] + y


def _paint_glyph(glyph: Glyph, pose: Pose) -> tuple[Ints, Ints]:
    """Return the coverages of body and accent, each (n, 32, 32), 0..256 in sum."""
    body = accent = np.zeros((len(pose.label), SIDE, SIDE), dtype=np.int64)
    for role, polygon in glyph:
        cover = _cover(*_place(polygon, pose))
        body, accent = body * (256 - cover) // 256, accent * (256 - cover) // 256
        if role == "body":
            body = body + cover
        elif role == "accent":
            accent = accent + cover
    return body, accent


def draw_outlines(pose: Pose) -> tuple[Ints, Ints]:
    """Return the coverages of body and accent for each picture's class, each (n, 32, 32), 0..256 in sum."""
    shape = (len(pose.label), SIDE, SIDE)
    body, accent = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    for label, name in enumerate(CLASSES):
        rows = np.nonzero(pose.label == label)[0]
        if len(rows):
            some = Pose._make(column[rows] for column in pose)
            body[rows], accent[rows] = _paint_glyph(_GLYPHS[name], some)
    return body, accent


def _tint(hue: Ints, strength: Ints, light: Ints) -> Ints:
    """Return colours of the given lightness (0..255), shape (n, 1, 1, 3); the hue circle has 1536 steps."""
    wheel = np.stack(
        [abs(hue - 768) - 256, 512 - abs(hue - 512), 512 - abs(hue - 1024)], axis=1
    ).clip(0, 255)
    grey = wheel @ np.array([77, 150, 29]) // 256  # lightness of the pure hue
    colour: Ints = light[:, None] + (wheel - grey[:, None]) * strength[:, None] // 256
    return colour.clip(0, 255)[:, None, None, :]


def _blend(under: Ints, over: Ints, weight: Ints) -> Ints:
    """Blend ``over`` on ``under`` (n, 32, 32, 3), with weights 0..256 of shape (n, 32, 32)."""
    return under + (over - under) * weight[..., None] // 256


def _slope(pick: Callable[[int, int], Ints], most: int) -> Ints:
    """Return a linear change of lightness in a random direction: (n, 32, 32, 1)."""
    x = np.arange(SIDE) * 2 - SIDE + 1
    across, down = pick(-most, most)[:, None, None], pick(-most, most)[:, None, None]
    return ((across * x + down * x[:, None]) // SIDE)[..., None]


def _pattern(pick: Callable[[int, int], Ints]) -> Ints:
    """Return no pattern, stripes, checks or spots, at a random slant: weights 0 or 256, (n, 32, 32)."""
    kind, period = pick(0, 3)[:, None, None], pick(24, 56)[:, None, None]
    across, down = pick(-8, 8)[:, None, None], pick(4, 8)[:, None, None]
    x, y = np.arange(SIDE), np.arange(SIDE)[:, None]
    along = (across * x + down * y) // period % 2
    athwart = (down * x - across * y) // period % 2
    on: Ints = np.choose(kind, [0 * along, along, along ^ athwart, along & athwart])
    return 256 * on


def _ground(pick: Callable[[int, int], Ints], light: Ints) -> Ints:
    """Return a patterned background of about the given lightness, with pebbles: (n, 32, 32, 3)."""
    hue = pick(0, 1535)
    plain = _tint(hue, pick(10, 60), light)
    other = _tint((hue + pick(-200, 200)) % 1536, pick(10, 60), light + pick(-22, 22))
    ground = _blend(plain, other, _pattern(pick)) + _slope(pick, 20)
    corners = np.array(_oval(0, 0, 256, 256), dtype=np.int64)[::2].T  # (2, 12)
    for _ in range(2):
        x, y = (pick(0, SIDE * UNIT)[:, None] + pick(64, 288)[:, None] * c // 256 for c in corners)
        pebble = _tint(pick(0, 1535), pick(40, 120), light + pick(-30, 30))
        ground = _blend(ground, pebble, _cover(x, y))
    return ground


def _noise(index: Ints, seed: int, split: Split, most: Ints) -> Ints:
    """Return noise (n, 32, 32, 3) around zero, at most ``most``; each value is the sum of two random bytes."""
    pixels = np.arange(SIDE * SIDE).reshape(SIDE, SIDE)
    bits = random_bits(seed, _NOISE, split == "test", index[:, None, None], pixels)
    shifts = np.arange(0, 48, 8, dtype=np.uint64)
    parts = (bits[..., None] >> shifts & np.uint64(255)).astype(np.int64)  # (n, 32, 32, 6)
    return (parts[..., :3] + parts[..., 3:] - 255) * most[:, None, None, None] // 255


def _draw_chunk(index: Ints, seed: int, split: Split) -> tuple[NDArray[np.uint8], Ints]:
    """Return the images (n, 32, 32, 3) and labels (n,) of the pictures with these indices."""
    pose = _choose_poses(index, seed, split)
    pick = _picker(seed, _COLOURS, split, index)
    # Always a dark object on a light background. With both kinds, the statistics of small batches vary so much that
    # BatchNorm's running averages, and so the test accuracy, need more steps than two minutes allow (measured).
    dark, light = pick(35, 75), pick(175, 220)
    image = _ground(pick, light)
    hue, shade = pick(0, 1535), dark
    shading = _slope(pick, 18)
    step = pick(20, 40)  # the accent's lightness is closer to the background
    body, accent = draw_outlines(pose)
    image = _blend(image, _tint(hue, pick(40, 130), shade) + shading, body + accent)
    second = _tint((hue + pick(300, 1236)) % 1536, pick(60, 160), shade + step)
    image = _blend(image, second + shading, accent)
    image = image + _noise(index, seed, split, pick(6, 18))
    return image.clip(0, 255).astype(np.uint8), pose.label


def _check_count(n: int) -> None:
    if n < 1:
        raise UserError(f"cannot draw {n} shapes: ask for at least 1 picture")


def _chunks(n: int) -> Iterator[Ints]:
    for start in range(0, n, _CHUNK):
        yield np.arange(start, min(start + _CHUNK, n), dtype=np.int64)


def draw_shapes(n: int, seed: int = 0, split: Split = "train") -> Dataset:
    """Return the first ``n`` pictures of one split: classes balanced to within one, in random order.

    Raises UserError for ``n`` below 1.
    """
    _check_count(n)
    images = np.empty((n, SIDE, SIDE, 3), dtype=np.uint8)
    labels = np.empty(n, dtype=np.int64)
    for index in _chunks(n):
        images[index], labels[index] = _draw_chunk(index, seed, split)
    return Dataset(images, labels, CLASSES)


def load_shapes(num_train: int = 700, num_test: int = 400, seed: int = 0) -> Data:
    """Return both splits: training pictures face right, half of the test pictures face left.

    Raises UserError if either number is below 1.
    """
    _check_count(num_test)  # fail before drawing the training pictures
    train = draw_shapes(num_train, seed, "train")
    return Data("shapes", train, draw_shapes(num_test, seed, "test"))
