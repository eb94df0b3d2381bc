"""Adam and SGD in NumPy, written like the formulas of the papers, with the known differences as options.

The optimizer state has the same form for all frameworks: the number of steps, and arrays by slot and canonical name.
SGD has the slot "momentum": PyTorch's buffer, without the learning rate. Adam has the slots "first" and "second" for
its moments.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from common.reference.conventions import ALIGNED, Conventions
from common.reference.layers import Array

Arrays = Mapping[str, Array]


@dataclass
class State:
    """The number of ``steps``, arrays by slot and canonical name, and the learning rate of the last step if known."""

    steps: int = 0
    slots: dict[str, dict[str, Array]] = field(default_factory=dict)
    lr: float | None = None


@dataclass
class SGD:
    """Gradient descent with momentum: b = momentum b + g + decay w; w = w - lr b."""

    lr: float
    momentum: float = 0.0
    weight_decay: float = 0.0
    conventions: Conventions = ALIGNED
    state: State = field(default_factory=State)

    def step(self, weights: Arrays, gradients: Arrays) -> dict[str, Array]:
        """Return the new parameters, with the names of ``gradients``, and update the state."""
        old = self.state.slots.get("momentum", {})
        buffers = {}
        for name, g in gradients.items():
            mu, decay = _numbers(g, self.momentum * self._rescale(), self.weight_decay)
            if self.conventions.weight_decay == "coupled":
                g = g + decay * weights[name]
            buffers[name] = mu * old[name] + g if name in old else g
        self.state = State(self.state.steps + 1, {"momentum": buffers}, self.lr)
        return self.updated_parameters(weights, self.state)

    def _rescale(self) -> float:
        """Return the factor on the buffer after a change of the learning rate, if the buffer contains the rate."""
        if self.conventions.momentum_rate == "outside" or self.state.lr is None:
            return 1.0
        return self.state.lr / self.lr

    def updated_parameters(self, weights: Arrays, state: State) -> dict[str, Array]:
        """Return the parameters after a step that has produced ``state``."""
        new: dict[str, Array] = {}
        for name, b in state.slots["momentum"].items():
            w = weights[name]
            lr, decay = _numbers(w, self.lr, self.weight_decay)
            if self.conventions.weight_decay == "decoupled":
                w = w - lr * decay * w
            new[name] = w - lr * b
        return new


@dataclass
class Adam:
    """Adam (Kingma and Ba 2015). Epsilon "inside" is the rearranged form at the end of their section 2.

    The default of ``eps`` is the epsilon of the conventions.
    """

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float | None = None
    conventions: Conventions = ALIGNED
    state: State = field(default_factory=State)

    def step(self, weights: Arrays, gradients: Arrays) -> dict[str, Array]:
        """Return the new parameters, with the names of ``gradients``, and update the state."""
        first, second = ({**self.state.slots.get(slot, {})} for slot in ("first", "second"))
        for name, g in gradients.items():
            b1, b2 = _numbers(g, *self.betas)
            first[name] = b1 * first.get(name, 0 * g) + (1 - b1) * g
            second[name] = b2 * second.get(name, 0 * g) + (1 - b2) * g * g
        slots = {"first": first, "second": second}
        self.state = State(self.state.steps + 1, slots, self.lr)
        return self.updated_parameters(weights, self.state)

    def updated_parameters(self, weights: Arrays, state: State) -> dict[str, Array]:
        """Return the parameters after a step that has produced ``state``."""
        # Bias correction: the moments start at 0.
        correct1, correct2 = (np.float64(1 - beta**state.steps) for beta in self.betas)
        epsilon = self.conventions.adam_epsilon if self.eps is None else self.eps
        if self.conventions.adam_epsilon_place == "inside":
            epsilon = epsilon / np.sqrt(correct2)
        new: dict[str, Array] = {}
        for name, m in state.slots["first"].items():
            w, v = weights[name], state.slots["second"][name]
            rate, root, eps = _numbers(w, float(self.lr / correct1), np.sqrt(correct2), epsilon)
            new[name] = w - rate * m / (np.sqrt(v) / root + eps)
        return new


Optimizer = SGD | Adam


def _numbers(array: Array, *numbers: float) -> tuple[Array, ...]:
    """Return numbers in the dtype of an array."""
    return tuple(array.dtype.type(number) for number in numbers)
