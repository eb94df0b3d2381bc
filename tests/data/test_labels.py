"""Labels that are no class are refused by name, where they enter."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from common.datasets import Dataset
from common.labels import check_labels

KINDS = arrays.integer_dtypes() | arrays.unsigned_integer_dtypes() | arrays.floating_dtypes()


@given(arrays.arrays(KINDS, st.integers(0, 5)), st.integers(1, 300))
def test_exactly_the_whole_numbers_below_the_number_of_classes_are_labels(labels, num_classes):
    wrong = [label for label in labels.tolist() if label not in range(num_classes)]
    if not wrong:
        check_labels(labels, num_classes)
        return
    with pytest.raises(ValueError, match="is no class") as refused:
        check_labels(labels, num_classes)
    assert str(refused.value).startswith(f"label {wrong[0]} is no class")


@pytest.mark.parametrize("label", [3, -1, -100])
def test_a_dataset_has_no_label_without_a_class(label):
    images = np.zeros((4, 8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match=f"label {label} is no class.* from 0 to 2"):
        Dataset(images, np.array([0, 1, label, 2]), ("a", "b", "c"))
