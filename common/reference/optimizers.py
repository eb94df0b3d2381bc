"""Adam and SGD in NumPy, each written out as its paper or framework has it, with the known differences to choose.

An optimiser's state has one form for all frameworks: the number of steps, and arrays by slot and canonical name:
"momentum" for SGD (PyTorch's buffer, free of the learning rate), "first" and "second" moments for Adam.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from common.reference.conventions import ALIGNED, Conventions
from common.reference.layers import Array

Arrays = Mapping[str, Array]


@dataclass
class State:
    """``steps`` taken, and each slot's arrays by canonical name."""

    steps: int = 0
    slots: dict[str, dict[str, Array]] = field(default_factory=dict)


@dataclass
class SGD:
    """Gradient descent with momentum: b = momentum b + g + decay w; w = w - lr b."""

    lr: float
    momentum: float = 0.0
    weight_decay: float = 0.0
    conventions: Conventions = ALIGNED
    state: State = field(default_factory=State)
    _baked_lr: float | None = None  # the learning rate that the buffers hold, where it goes inside

    def step(self, weights: Arrays, gradients: Arrays) -> dict[str, Array]:
        """Return the new parameters, named as ``gradients`` are, and keep the new state."""
        old = self.state.slots.get("momentum", {})
        rescale = self._rescale()
        buffers, new = {}, {}
        for name, g in gradients.items():
            w, lr, mu, decay = _numbers(weights[name], self.lr, self.momentum, self.weight_decay)
            if self.conventions.weight_decay == "coupled":
                g = g + decay * w
            else:
                w = w - lr * decay * w
            buffers[name] = mu * rescale * old[name] + g if name in old else g
            new[name] = w - lr * buffers[name]
        self.state = State(self.state.steps + 1, {"momentum": buffers})
        return new

    def _rescale(self) -> float:
        """Return what a change of the learning rate does to the buffer where the rate goes inside."""
        before, self._baked_lr = self._baked_lr or self.lr, self.lr
        return before / self.lr if self.conventions.momentum_rate == "inside" else 1.0


@dataclass
class Adam:
    """Adam (Kingma and Ba 2015). With epsilon "inside": the rearranged form at the end of their section 2."""

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float | None = None  # None: that of the conventions
    weight_decay: float = 0.0
    conventions: Conventions = ALIGNED
    state: State = field(default_factory=State)

    def step(self, weights: Arrays, gradients: Arrays) -> dict[str, Array]:
        """Return the new parameters, named as ``gradients`` are, and keep the new state."""
        steps = self.state.steps + 1
        beta1, beta2 = self.betas
        correct1, correct2 = 1 - beta1**steps, 1 - beta2**steps  # for moments that start at 0
        epsilon = self.conventions.adam_epsilon if self.epsilon is None else self.epsilon
        if self.conventions.adam_epsilon_place == "inside":
            epsilon = epsilon / np.sqrt(correct2)
        first, second, new = {}, {}, {}
        for name, g in gradients.items():
            w = weights[name]
            if self.conventions.weight_decay == "coupled":
                g = g + w.dtype.type(self.weight_decay) * w
            else:
                w = w * w.dtype.type(1 - self.lr * self.weight_decay)
            m, v = (self.state.slots.get(slot, {}).get(name) for slot in ("first", "second"))
            b1, b2, rate, root, eps = _numbers(
                g, beta1, beta2, self.lr / correct1, np.sqrt(correct2), epsilon
            )[1:]
            first[name] = (1 - b1) * g if m is None else b1 * m + (1 - b1) * g
            second[name] = (1 - b2) * g * g if v is None else b2 * v + (1 - b2) * g * g
            new[name] = w - rate * first[name] / (np.sqrt(second[name]) / root + eps)
        self.state = State(steps, {"first": first, "second": second})
        return new


def _numbers(array: Array, *numbers: float) -> tuple[Array, ...]:
    """Return ``array``, and the numbers in its type."""
    return (array, *(array.dtype.type(number) for number in numbers))
