"""The whole training step in one CUDA graph: what --compile is on one GPU.

A step of this network is hundreds of short kernels, and Python takes longer
to launch them one by one than a fast GPU takes to run them. A graph holds
them all and is launched at once. How it must be captured is in PyTorch's
notes, "CUDA graphs" and there "whole-network capture". It has not been run on
a GPU yet: tests/test_cuda_graph.py holds it to a stand-in, and runs on one.
"""

import warnings
from typing import Any

import torch
from torch import nn

from common.errors import UserError

WARM_UP = 3  # steps before a capture: what libraries set up once is not in it


class OneGraph(nn.Module):
    """A network whose training step is captured once, then replayed.

    A graph repeats the same kernels on the same addresses with the same
    numbers. So it holds for one shape of batch, one loss and one state of
    the optimizer, learning rate included: whatever else comes, a smaller
    last batch say, is trained in the ordinary way, and captured in its turn
    after WARM_UP such steps in a row. What Python does beside launching
    kernels, in a forward hook or a loss that counts its calls, is not
    repeated.
    """

    def __init__(self, net):
        super().__init__()
        self.net = net
        self.stream = None
        self.graph: Any = None
        self.results: Any = None  # where the graph writes them
        self.captured = self.latest = None  # what the graph, the step is for
        self.in_a_row = 0

    def forward(self, X):
        return self.net(X)

    def step(self, train_batch, X, y, loss, trainer, devices):
        """Do what `train_batch` does with the network, as one launch.

        Raises UserError for an optimizer or a loss that no graph can hold.
        """
        constants = _constants(X, y, loss, trainer)
        if constants != self.captured:
            _check_trainer(trainer)
            again = constants == self.latest
            self.in_a_row = self.in_a_row + 1 if again else 1
            self.latest = constants
            arguments = loss, trainer, devices
            if self.in_a_row <= WARM_UP:
                return self._launch_singly(train_batch, X, y, *arguments)
            self._capture(train_batch, X, y, *arguments)
            self.captured = constants
        self.in_a_row = 0  # a last batch of each epoch is no row
        self.X.copy_(X, non_blocking=True)
        self.y.copy_(y, non_blocking=True)
        self.graph.replay()
        # The next replay writes its results to the same place.
        return tuple(result.clone() for result in self.results)

    def _launch_singly(self, train_batch, X, y, *arguments):
        """Train in the ordinary way, on the stream of the captures.

        Autograd and cuBLAS remember the stream on which they were used
        first; it must not be the default stream, which cannot be captured.
        """
        current = torch.cuda.current_stream(X.device)
        if self.stream is None:
            self.stream = torch.cuda.Stream(X.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream), warnings.catch_warnings():
            # Adam is made for a graph, and warns that this step is in none.
            warnings.filterwarnings("ignore", ".*capturable=True", UserWarning)
            results = train_batch(self.net, X, y, *arguments)
        current.wait_stream(self.stream)
        return results

    def _capture(self, train_batch, X, y, loss, trainer, devices):
        """Record the kernels of a step; none of them runs."""
        self.graph = self.results = self.captured = None  # their memory first
        self.X, self.y = X.clone(), y.clone()
        # Backward makes the gradients anew, in the graph's own memory; the old
        # ones go before the capture, which is no time to free memory.
        trainer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self.stream):
                self.results = train_batch(
                    self.net, self.X, self.y, loss, trainer, devices
                )
        except RuntimeError as error:
            raise UserError(
                "no CUDA graph can hold this training step; leave --compile "
                f"out: {_first_line(error)}"
            ) from error
        self.graph = graph


def _check_trainer(trainer):
    """Raise UserError for an optimizer whose step no graph can hold.

    Gradient descent has no state but on the device. Others count their steps
    on the host, unless they are made capturable: a graph of them would
    repeat the one step for ever.
    """
    if type(trainer) is torch.optim.SGD or all(
        group.get("capturable") for group in trainer.param_groups
    ):
        return
    raise UserError(
        f"--compile on a GPU cannot capture this {type(trainer).__name__}: "
        "make it after trainer.prepare with trainer.adam or trainer.sgd, or "
        "with capturable=True"
    )


def _constants(X, y, loss, trainer):
    """Return what a graph of the step holds fast: numbers and addresses."""
    numbers, addresses = [], []
    for group in trainer.param_groups:
        numbers.append(
            {k: _fixed(v) for k, v in group.items() if k != "params"}
        )
        for weight in group["params"]:
            addresses += [weight.data_ptr(), weight.requires_grad]
            for value in trainer.state.get(weight, {}).values():
                if isinstance(value, torch.Tensor):
                    addresses.append(value.data_ptr())
    batch = X.shape, X.dtype, y.shape, y.dtype
    return batch, loss, trainer, numbers, addresses


def _fixed(number):
    """Return what a graph holds fast of a number, as of a learning rate."""
    if not isinstance(number, torch.Tensor):
        return number
    return number.item() if number.is_cpu else number.data_ptr()


def _first_line(error):
    """Return what went wrong first: a broken capture fails once more."""
    while error.__context__ is not None:
        error = error.__context__
    return (str(error).splitlines() or [type(error).__name__])[0]
