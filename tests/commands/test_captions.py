"""Titles describe augmentations with their numbers; captions have the parameters drawn for each image."""

import re

import numpy as np
import pytest

from common.augmentation.decisions import (
    PROPERTIES,
    Decision,
    FlipsLeftRight,
    FlipsTopBottom,
    Jitters,
    crops,
    decide,
)
from common.augmentation.operations import (
    CIFAR10_NORMALIZE,
    ColorJitter,
    RandomFlipLeftRight,
    RandomFlipTopBottom,
    RandomResizedCrop,
    Resize,
    gallery,
    kaggle_train_augs,
    operation,
)
from common.drawing import image_grid
from common.drawing.captions import captions, described
from common.reference.transforms import augment

SIZE = (30, 44)
OUT = (20, 24)


def test_the_caption_of_a_flip_says_whether_the_image_was_flipped():
    made = np.array([True, False])
    left_right, top_bottom = FlipsLeftRight(made), FlipsTopBottom(made)
    assert [captions([left_right], i) for i in (0, 1)] == ["mirrored", "unchanged"]
    assert [captions([top_bottom], i) for i in (0, 1)] == ["upside down", "unchanged"]
    both = [left_right, FlipsTopBottom(~made)]
    assert captions(both, 0) == "mirrored\nnot upside down"
    assert captions(both, 1) == "not mirrored\nupside down"


def test_the_caption_of_a_crop_has_its_box_in_pixels_height_first():
    box = crops(np.array([[14, 30, 12, 21]]), (40, 60), OUT)
    assert captions([box], 0) == "box 12 × 21 at (14, 30)"
    assert captions([box], 0, short=True) == "box 12 × 21"


def test_the_caption_of_a_jitter_has_only_the_changing_factors_in_order():
    factors = np.array([[0.734, 1.0, 1.256, 0.214], [1, 1, 1, -0.0004]], np.float32)
    jitter = Jitters(factors, np.array([[3, 0, 2], [2, 3, 0]]))
    assert captions([jitter], 0) == "hue +0.21 turns\nbrightness × 0.73\nsaturation × 1.26"
    assert captions([jitter], 1) == "saturation × 1.00\nhue +0.00 turns\nbrightness × 1.00"


def test_augmentations_without_random_parameters_have_no_caption():
    decisions = decide(kaggle_train_augs((32, 32)), np.arange(3), 0, 0, (32, 32))
    for i in range(3):
        box, flip = captions(decisions, i).split("\n")
        assert box.startswith("box ")
        assert flip in ("mirrored", "not mirrored")
    only = decide([Resize((40, 40)), CIFAR10_NORMALIZE], np.arange(3), 0, 0, (32, 32))
    assert captions(only, 0) == captions([], 0) == "unchanged"


def test_a_random_box_that_is_the_whole_image_has_a_caption():
    whole = np.array([[0, 0, 30, 44], [1, 2, 20, 20]])
    assert captions([crops(whole, SIZE, OUT)], 0) == "box 30 × 44 at (0, 0)"


@pytest.mark.parametrize("name", list(gallery()))
def test_the_picture_can_be_reproduced_from_its_caption(name):
    """Captions have two decimals, so colours differ by hundredths; a wrong order or box changes some by tenths."""
    images = np.random.default_rng(0).random((6, 3, *SIZE))
    decisions = decide(gallery(OUT)[name], np.arange(6), 5, 0, SIZE)
    drawn = augment(images, decisions)
    for i, image in enumerate(images):
        read = decisions_from(captions(decisions, i))
        np.testing.assert_allclose(augment(image[None], read)[0], drawn[i], atol=0.05)


def decisions_from(caption: str) -> list[Decision]:
    """Parse a caption: return the decisions of one image."""
    yes, no = np.array([True]), np.array([False])
    decisions: list[Decision] = []
    for line in caption.split("\n"):
        if change := re.fullmatch(r"(\w+) (?:× (\d\.\d\d)|([+-]\d\.\d\d) turns)", line):
            name, factor, turns = change.groups()
            assert (name == "hue") == (turns is not None)
            factors, property = np.ones((1, 4), np.float32), PROPERTIES.index(name)
            factors[0, property] = float(factor or turns)
            decisions.append(Jitters(factors, np.array([[property]])))
        elif box := re.fullmatch(r"box (\d+) × (\d+) at \((\d+), (\d+)\)", line):
            height, width, top, left = map(int, box.groups())
            decisions.append(crops(np.array([[top, left, height, width]]), SIZE, OUT))
        elif line != "unchanged":
            flips = {
                "mirrored": FlipsLeftRight(yes),
                "not mirrored": FlipsLeftRight(no),
                "upside down": FlipsTopBottom(yes),
                "not upside down": FlipsTopBottom(no),
            }
            decisions.append(flips[line])
    return decisions


def test_the_titles_of_the_chapter_have_its_numbers():
    crop = "random resized crop to 200 × 200: 10 to 100 % of the area, ratio 1/2 to 2"
    jitter = (
        "brightness, contrast, saturation: factors from 0.5 to 1.5; hue: up to half a turn either way\n"
        "in an order drawn for each image"
    )
    flip = "left-right flip, one time in two"
    assert {name: described(augs) for name, augs in gallery().items()} == {
        "left-right flip": flip,
        "top-bottom flip": "top-bottom flip, one time in two",
        "random resized crop": crop,
        "brightness": "brightness: a factor from 0.5 to 1.5",
        "hue": "hue: up to half a turn either way",
        "colour jitter": jitter,
        "flip, jitter and crop": f"{flip}\n{jitter}\n{crop}",
    }
    assert described(kaggle_train_augs((32, 48))).split("\n") == [
        "resize to 40 × 60",
        "random resized crop to 32 × 48: 64 to 100 % of the area, square",
        flip,
        "normalize each channel",
    ]


def test_titles_have_the_numbers_of_other_arguments():
    unequal = ColorJitter(brightness=0.25, contrast=1.5, saturation=1.5, hue=0.1)
    assert described([unequal]) == (
        "brightness: a factor from 0.75 to 1.25; contrast, saturation: factors from 0 to 2.5; "
        "hue: up to 0.1 turns either way\nin an order drawn for each image"
    )
    crop = RandomResizedCrop((8, 9), scale=(0.08, 0.5), ratio=(1.5, 1.5))
    assert described([crop]) == "random resized crop to 8 × 9: 8 to 50 % of the area, ratio 3/2"
    assert described([RandomResizedCrop((8, 9))]).endswith(
        "8 to 100 % of the area, ratio 3/4 to 4/3"
    )
    assert described([RandomFlipTopBottom(0.25)]) == "top-bottom flip, with probability 0.25"
    assert described([ColorJitter()]) == described([]) == ""


def test_in_the_native_pipeline_the_title_names_the_framework_and_only_the_arguments():
    augs = [RandomFlipLeftRight(), operation("jitter", OUT)]
    assert described(augs, "TensorFlow") == (
        "left-right flip, one time in two\n"
        "brightness 0.5, contrast 0.5, saturation 0.5, hue 0.5\n"
        "drawn by TensorFlow"
    )


def test_the_captions_of_the_chapters_fit_under_their_images():
    """The example image has at most 512 pixels, those of the Kaggle chapter at most 999, so a box has three digits."""
    not_flipped = [FlipsLeftRight(np.array([False])), FlipsTopBottom(np.array([False]))]
    jitter = Jitters(np.array([[1.5, 1.5, 1.5, -0.5]]), np.arange(4)[None])
    box = crops(np.array([[400, 400, 112, 112]]), (512, 512), OUT)
    in_chapter_1 = captions([*not_flipped, jitter, box], 0)
    in_chapter_2 = captions([box, not_flipped[0]], 0, short=True)
    font = image_grid.load_font(image_grid.TEXT_SIZE)
    for caption, scale in ((in_chapter_1, 1.5), (in_chapter_2, 0.8)):
        for line in caption.split("\n"):
            assert (
                image_grid.shortened(line, font, round(scale * image_grid.PIXELS_PER_INCH)) == line
            )
