"""TensorFlow's import: without its chatter, with its errors, under Keras.

Its libraries write information to standard error before they can be told
not to: TF_CPP_MIN_LOG_LEVEL has no effect on that. So the import writes
through a process of its own that leaves these lines out: a process, as it
still passes on the last words where the import ends in an abort.
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

# Information and warnings of absl, its apology for them, and the error that
# every machine without an NVIDIA driver gets.
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
    """Leave TensorFlow's information out of standard error for a while."""
    chatter = CHATTER if _nvidia() else f"{CHATTER}|{NO_DRIVER}"
    command = [sys.executable, "-I", "-S", "-c", FILTER, chatter]
    _flush()
    before = os.dup(2)
    reading, writing = os.pipe()
    # In a session of its own, Ctrl-C does not reach it.
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
        # It ends with its input, unless another process still holds that.
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=5)


def _flush():
    if sys.stderr is not None:
        sys.stderr.flush()


def _nvidia():
    """Tell whether there is an NVIDIA driver, also in WSL."""
    return Path("/dev/nvidiactl").exists() or Path("/dev/dxg").exists()


def import_tensorflow():
    """Import TensorFlow and Keras, and find the devices.

    Raises UserError where Keras is to run on another framework.
    """
    chosen = os.environ.get("KERAS_BACKEND", "tensorflow")
    if chosen != "tensorflow":
        raise UserError(
            f"KERAS_BACKEND is {chosen}: unset it, or set it to tensorflow"
        )
    first = "tensorflow" not in sys.modules
    if first and find_spec("triton"):
        # PyTorch's; after TensorFlow it would abort the process.
        import_module("triton")
    with without_chatter() if first else contextlib.nullcontext():
        import keras
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
    if keras.backend.backend() != "tensorflow":
        raise UserError(
            f"Keras runs on {keras.backend.backend()} in this process: "
            "start another"
        )
    if _nvidia() and not gpus:
        warnings.warn(NO_GPU, stacklevel=2)
