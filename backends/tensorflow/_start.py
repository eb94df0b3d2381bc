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
from pathlib import Path

from common.errors import UserError

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
    chatter = CHATTER
    if not Path("/dev/nvidia0").exists():
        chatter += f"|{NO_DRIVER}"
    sys.stderr.flush()
    before = os.dup(2)
    command = [sys.executable, "-I", "-S", "-c", FILTER, chatter]
    reading, writing = os.pipe()
    child = subprocess.Popen(command, stdin=reading, stderr=before)
    os.dup2(writing, 2)
    os.close(reading)
    os.close(writing)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(before, 2)
        os.close(before)
        child.wait()


def import_tensorflow():
    """Import TensorFlow and Keras, and find the devices.

    Raises UserError where Keras runs on another framework.
    """
    quietly = "tensorflow" not in sys.modules
    with without_chatter() if quietly else contextlib.nullcontext():
        import keras
        import tensorflow

        tensorflow.config.list_physical_devices()
    if keras.backend.backend() != "tensorflow":
        raise UserError(
            f"Keras runs on {keras.backend.backend()} here: unset "
            "KERAS_BACKEND, or set it to tensorflow"
        )
