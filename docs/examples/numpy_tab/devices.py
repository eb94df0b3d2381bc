"""The CPU, NumPy's only device, and the settings that are active on it."""

import numpy as np

from common.errors import UserError
from common.system.environment import cores, gpu_indices, processor

image_layout = "NCHW"


def cpu():
    """Return the CPU device."""
    return "cpu"


def gpu(i=0):
    """Return the i-th GPU device."""
    return f"gpu({i})"


def num_gpus():
    """Return the number of GPUs that the framework can use."""
    return 0


def try_gpu(i=0):
    """Return gpu(i) if it exists, otherwise cpu()."""
    return gpu(i) if num_gpus() >= i + 1 else cpu()


def try_all_gpus():
    """Return all available GPUs, or [cpu()] if there is no GPU."""
    return [gpu(i) for i in range(num_gpus())] or [cpu()]


def get_devices(name):
    """Return the devices named by 'auto', 'cpu', 'gpu' or 'gpu:0,1'."""
    return [gpu(i) for i in gpu_indices(name, num_gpus())] or [cpu()]


def describe(devices, precision="fp32", compile=False, sync_batch_norm=False):
    """Describe the devices and the settings that are active on them.

    Raises UserError for settings that cannot work on these devices.
    """
    if precision == "bf16":
        raise UserError("--precision bf16: NumPy has no bfloat16")
    if compile:
        raise UserError("--compile: NumPy has no compiler")
    if sync_batch_norm:
        raise UserError("--sync-batch-norm: NumPy trains in one process")
    return {
        "precision": precision,
        "device": f"{devices[0]}: {processor()}",
        # BLAS uses them for products, by default. Everything else runs in one
        # thread.
        "threads": str(cores()),
    }


def from_numpy(array, device=None):  # noqa: ARG001
    """Return a NumPy array as a tensor of the same type and layout."""
    return array


def to_numpy(X):
    """Return a tensor's values as a NumPy array, in the same layout."""
    return np.asarray(X)


def set_seed(seed):
    """Seed every random generator of the framework."""
    np.random.seed(seed)
