"""Read a checkpoint of this project with nothing but NumPy and safetensors."""

import json

from safetensors import safe_open


def read_checkpoint(path):
    """Return the weights, the arrays of the optimizer, its number of steps, and the metrics of each epoch."""
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    optimizer = {name: arrays.pop(name) for name in list(arrays) if name.startswith("optimizer.")}
    return arrays, optimizer, int(metadata["steps"]), json.loads(metadata["epochs"])
