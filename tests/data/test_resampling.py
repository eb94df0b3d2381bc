"""Resampling by matrices gives Pillow's antialiased bilinear resize of a crop."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from common.augmentation.resampling import box_weights


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_rows_sum_to_one_and_pixels_outside_the_box_have_weight_zero(data):
    in_size, out_size = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 60))
    length = data.draw(st.integers(1, in_size))
    start = data.draw(st.integers(0, in_size - length))
    (weights,) = box_weights(np.array([start]), np.array([length]), in_size, out_size)
    assert weights.shape == (out_size, in_size)
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-6)
    assert not weights[:, :start].any()
    assert not weights[:, start + length :].any()


def test_a_box_of_the_same_size_is_copied_exactly():
    (weights,) = box_weights(np.array([3]), np.array([5]), 12, 5)
    np.testing.assert_array_equal(weights, np.eye(12, dtype=np.float32)[3:8])


@pytest.mark.parametrize("seed", range(12))
def test_random_boxes_differ_from_pillow_by_at_most_1_of_255(seed):
    rng = np.random.default_rng(seed)
    height, width, out_height, out_width = rng.integers(5, 70, 4)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    box_height, box_width = rng.integers(1, height + 1), rng.integers(1, width + 1)
    top, left = rng.integers(0, height - box_height + 1), rng.integers(0, width - box_width + 1)
    rows = box_weights(np.array([top]), np.array([box_height]), height, out_height)[0]
    columns = box_weights(np.array([left]), np.array([box_width]), width, out_width)[0]
    ours = np.einsum("ah,hwc,bw->abc", rows, image.astype(np.float64), columns)
    cut = Image.fromarray(image).crop((left, top, left + box_width, top + box_height))
    pillow = np.asarray(cut.resize((out_width, out_height), Image.Resampling.BILINEAR), float)
    assert np.abs(np.rint(ours) - pillow).max() <= 1
