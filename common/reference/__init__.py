"""The reference: the chapter's transforms, network and optimizers in NumPy and float64, written for readability.

It decides which framework is correct. Its tests therefore use no framework, only finite differences, Pillow, `colorsys`
and the formulas of the papers (tests/parity/test_reference.py).
"""

from common.reference.conventions import ALIGNED, KNOWN_DIFFERENCES, Conventions, Difference
from common.reference.optimizers import SGD, Adam, Optimizer, State
from common.reference.resnet import forward, logits
from common.reference.training import gradients, train_step

__all__ = [
    "ALIGNED",
    "KNOWN_DIFFERENCES",
    "SGD",
    "Adam",
    "Conventions",
    "Difference",
    "Optimizer",
    "State",
    "forward",
    "gradients",
    "logits",
    "train_step",
]
