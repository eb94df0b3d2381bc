"""The CPU and GPUs in MXNet, and the settings that are active on them."""

import os
import platform
import random

import mxnet as mx
import numpy as onp
from mxnet import np, npx

from backends import onednn, require_sync_batch_norm
from common.errors import UserError
from common.system.environment import (
    cpu_flags,
    gpu_indices,
    processor,
    visible_cores,
)

from ._bfloat16 import BFLOAT16, in_bfloat16

image_layout = "NCHW"
NO_BFLOAT16 = "--precision bf16: MXNet needs a processor with AVX-512 for it"


def cpu():
    """Return the CPU device."""
    return npx.cpu()


def gpu(i=0):
    """Return the i-th GPU device."""
    return npx.gpu(i)


def num_gpus():
    """Return the number of GPUs that the framework can use."""
    return npx.num_gpus()


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
    on_cpu = devices[0].device_type == "cpu"
    if sync_batch_norm:
        require_sync_batch_norm(["mxnet"])
    if precision == "bf16":
        _require_bfloat16(on_cpu)
    settings = {"precision": precision}
    if on_cpu:
        settings["device"] = f"cpu: {processor()}"
        settings["threads"] = str(_threads())
        if instructions := onednn.instructions(precision):
            settings["instructions"] = instructions
    else:
        settings["device"] = ", ".join(str(device) for device in devices)
    if compile:
        settings["compile"] = "hybridize, which is always on"
    return settings


def _threads():
    """Return the number of compute threads that MXNet has chosen."""
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    if asked.isdecimal():
        return int(asked)
    hyperthreads = 2 if platform.machine() in ("x86_64", "AMD64") else 1
    return max(visible_cores() // hyperthreads, 1)


def _require_bfloat16(on_cpu):
    """Raise UserError unless a convolution in bfloat16 works here."""
    if not on_cpu:
        raise UserError("--precision bf16: MXNet supports it on the CPU only")
    flags = cpu_flags()
    if flags and "avx512bw" not in flags:
        raise UserError(NO_BFLOAT16)
    conv = mx.gluon.nn.Conv2D(16, kernel_size=3, in_channels=16)
    conv.initialize()
    in_bfloat16(conv)
    try:
        conv(np.ones((1, 16, 4, 4))).wait_to_read()
    except mx.MXNetError as error:
        raise UserError(NO_BFLOAT16) from error


def from_numpy(array, device=None):
    """Return a NumPy array as a tensor of the same type and layout."""
    return np.array(array, dtype=array.dtype, ctx=device)


def to_numpy(X):
    """Return a tensor's values as a NumPy array, in the same layout.

    bfloat16 becomes float32, because NumPy has no such type.
    """
    if X.dtype == BFLOAT16:
        X = mx.nd.amp_cast(X.as_nd_ndarray(), dtype="float32")
    return X.asnumpy()


def set_seed(seed):
    """Seed every random generator of the framework."""
    # Gluon draws its crops from Python's generator and its shuffle from
    # NumPy's. MXNet's own generator takes a seed of 31 bits.
    random.seed(seed)
    onp.random.seed(seed)
    npx.random.seed(seed % 2**31)
