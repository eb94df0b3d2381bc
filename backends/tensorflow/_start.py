"""Import TensorFlow and Keras: hide log messages, show errors, check settings.

The libraries log to standard error before TF_CPP_MIN_LOG_LEVEL has an effect.
So standard error goes through a filter during the import. The filter is a
process: it still passes on the last message if the import aborts.
"""

import contextlib
import os
import subprocess
import sys
import traceback
import warnings
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from common.errors import UserError, UserNotice

NO_GPU = UserNotice(
    "this machine has an NVIDIA driver, and TensorFlow finds no GPU: its CUDA "
    "libraries come with pip install 'tensorflow[and-cuda]'"
)

# Settings of Keras that this tab needs. Keras reads them from keras.json in
# ~/.keras or $KERAS_HOME, and a program can change them.
NEEDED = {
    "floatx": "float32",
    "dtype_policy": "float32",
    "image_data_format": "channels_last",
}

SETTINGS_READER = str(Path("keras/src/backend/config.py"))

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
    """Import TensorFlow and Keras, check settings, and find the devices.

    Raises UserError if Keras is set to another framework, or if it refuses its
    own settings.
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
        keras = _import_keras()
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
    if keras.backend.backend() != "tensorflow":
        raise UserError(
            f"Keras runs on {keras.backend.backend()} in this process: "
            "start a new one"
        )
    _use_needed_settings(keras)
    if not first:
        _allow_growth(tf, gpus)
    hidden = "CUDA_VISIBLE_DEVICES" in os.environ
    if _nvidia() and not gpus and not hidden:
        warnings.warn(NO_GPU, stacklevel=2)


def _allow_growth(tf, gpus):
    """Take GPU memory as it is needed, if no variable could be set before.

    TF_FORCE_GPU_ALLOW_GROWTH has precedence, whatever its value.
    """
    for gpu in gpus:
        # Too late after the first operation, or if the user divides the GPU.
        with contextlib.suppress(RuntimeError, ValueError):
            tf.config.experimental.set_memory_growth(gpu, True)


def _import_keras():
    """Import Keras; raise UserError if it refuses its own settings."""
    try:
        import keras
    except Exception as error:
        files = [f.filename for f in traceback.extract_tb(error.__traceback__)]
        if not any(file.endswith(SETTINGS_READER) for file in files):
            raise
        why = str(error).rstrip(".")
        raise UserError(
            "Keras refuses its settings, in keras.json of ~/.keras or "
            f"$KERAS_HOME or in the environment: {why}. Correct them, or "
            "remove the file"
        ) from error
    return keras


def _use_needed_settings(keras):
    """Set what this tab needs, and warn about each setting that differs."""
    for name, value in NEEDED.items():
        found = getattr(keras.config, name)()
        found = getattr(found, "name", found)  # of a dtype policy
        if found != value:
            getattr(keras.config, f"set_{name}")(value)
            warnings.warn(
                UserNotice(
                    f"Keras is set to {name} {found}, for example in "
                    f"~/.keras/keras.json: this process uses {value}"
                ),
                stacklevel=3,
            )
