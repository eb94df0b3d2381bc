"""The CPU and GPUs in TensorFlow, and the settings that are active on them."""

import os

import keras
import tensorflow as tf

from common.errors import UserError
from common.system.environment import (
    gpu_indices,
    processor,
    tf32_is_off,
    visible_cores,
)

from .processes import num_processes

# Differs: channels come last, the default of Keras' layers. In PyTorch and
# MXNet they come second.
image_layout = "NHWC"


def cpu():
    """Return the CPU device."""
    return "/CPU:0"


def gpu(i=0):
    """Return the i-th GPU device."""
    return f"/GPU:{i}"


def num_gpus():
    """Return the number of GPUs that the framework can use."""
    return len(tf.config.get_visible_devices("GPU"))


def try_gpu(i=0):
    """Return gpu(i) if it exists, otherwise cpu()."""
    return gpu(i) if num_gpus() >= i + 1 else cpu()


def try_all_gpus():
    """Return all available GPUs, or [cpu()] if there is no GPU."""
    return [gpu(i) for i in range(num_gpus())] or [cpu()]


def get_devices(name):
    """Return the devices named by 'auto', 'cpu', 'gpu' or 'gpu:0,1'."""
    return [gpu(i) for i in gpu_indices(name, num_gpus())] or [cpu()]


def describe(
    devices,
    precision="fp32",
    compile=False,
    sync_batch_norm=False,  # noqa: ARG001
):
    """Describe the devices and the settings that are active on them.

    Raises UserError for settings that cannot work on these devices.
    """
    on_cpu = devices[0].startswith("/CPU")
    if compile and len(devices) > 1:
        raise UserError("--compile needs a single device: add --device gpu:0")
    if compile and num_processes() > 1:
        raise UserError(
            "--compile works in one process: leave out --compile or "
            "--processes"
        )
    settings = {"precision": precision}
    if on_cpu:
        settings["device"] = f"cpu: {processor()}"
        settings["threads"] = str(_threads())
    else:
        found = tf.config.get_visible_devices("GPU")
        names = [
            tf.config.experimental.get_device_details(gpu)["device_name"]
            for gpu in found
        ]
        settings["device"] = ", ".join(
            f"{device}: {names[int(device.rpartition(':')[2])]}"
            for device in devices
        )
        tf32 = tf.config.experimental.tensor_float_32_execution_enabled()
        if tf32 and precision == "fp32" and not tf32_is_off():
            settings["precision"] = "fp32, TF32 in products and convolutions"
    if compile:
        settings["compile"] = "XLA"
    return settings


def _threads():
    """Return the number of compute threads that TensorFlow has chosen."""
    if chosen := tf.config.threading.get_intra_op_parallelism_threads():
        return chosen
    asked = os.environ.get("TF_NUM_INTRAOP_THREADS", "")
    return int(asked) if asked.isdecimal() else visible_cores()


def from_numpy(array, device=None):
    """Return a NumPy array as a tensor of the same type and layout."""
    with tf.device(device):
        return tf.constant(array)


def to_numpy(X):
    """Return a tensor's values as a NumPy array, in the same layout.

    bfloat16 becomes float32, because NumPy has no such type.
    """
    if X.dtype == tf.bfloat16:
        X = tf.cast(X, tf.float32)
    return X.numpy()


def set_seed(seed):
    """Seed every random generator of the framework."""
    keras.utils.set_random_seed(seed)
