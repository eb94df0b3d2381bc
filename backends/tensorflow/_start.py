"""Import TensorFlow and Keras: hide log messages, show errors.

The libraries log to standard error before TF_CPP_MIN_LOG_LEVEL has an effect.
So standard error goes through a filter during the import. The filter is a
process: it still passes on the last message if the import aborts.
"""

import contextlib
import os
import subprocess
import sys
import warnings
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from common.errors import UserError, UserNotice

NO_GPU = UserNotice(
    "this machine has an NVIDIA driver, and TensorFlow finds no GPU: its CUDA "
    "libraries come with pip install 'tensorflow[and-cuda]'"
)

# absl's information and warnings, and its message about them. Without an
# NVIDIA driver, also the error that every such machine gets.
CHATTER = (
    r"[IW]\d{4} |\d{4}-\d\d-\d\d [\d:.]+: [IW] "
    r"|WARNING: All log messages before"
)
NO_DRIVER = r"E\d{4} .*failed call to cuInit"
FILTER = """
import re, sys
chatter = re.compile(sys.argv[1].encode())
for line in sys.stdin.buffer:
    if not chatter.match(line):
        sys.stderr.buffer.write(line)
        sys.stderr.flush()
"""


@contextlib.contextmanager
def without_chatter():
    """Filter TensorFlow's log messages out of standard error."""
    chatter = CHATTER if _nvidia() else f"{CHATTER}|{NO_DRIVER}"
    command = [sys.executable, "-I", "-S", "-c", FILTER, chatter]
    _flush()
    before = os.dup(2)
    reading, writing = os.pipe()
    # In its own session, Ctrl-C does not reach it.
    child = subprocess.Popen(
        command, stdin=reading, stderr=before, start_new_session=True
    )
    os.dup2(writing, 2)
    os.close(reading)
    os.close(writing)
    try:
        yield
    finally:
        _flush()
        os.dup2(before, 2)
        os.close(before)
        # The filter ends with its input, unless another process still holds
        # it.
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=5)


def _flush():
    if sys.stderr is not None:
        sys.stderr.flush()


def _nvidia():
    """Return whether there is an NVIDIA driver, also in WSL."""
    return Path("/dev/nvidiactl").exists() or Path("/dev/dxg").exists()


def import_tensorflow():
    """Import TensorFlow and Keras, and find the devices.

    Raises UserError if Keras is set to another framework.
    """
    chosen = os.environ.get("KERAS_BACKEND", "tensorflow")
    if chosen != "tensorflow":
        raise UserError(
            f"KERAS_BACKEND is {chosen}: unset it, or set it to tensorflow"
        )
    first = "tensorflow" not in sys.modules
    if first and find_spec("triton"):
        # It belongs to PyTorch, and would abort the process after TensorFlow.
        import_module("triton")
    with without_chatter() if first else contextlib.nullcontext():
        import keras
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
    if keras.backend.backend() != "tensorflow":
        raise UserError(
            f"Keras runs on {keras.backend.backend()} in this process: "
            "start a new one"
        )
    if _nvidia() and not gpus:
        warnings.warn(NO_GPU, stacklevel=2)
