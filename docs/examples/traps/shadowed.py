"""A folder with the name of a framework."""

import subprocess
import sys


def trap(root):
    """Run backends/train.py, which imports mxnet."""
    command = [sys.executable, "backends/train.py"]
    return subprocess.run(
        command, cwd=root, capture_output=True, text=True
    )


def fixed(root):
    """Run backends/train.py, which imports mxnet."""
    command = [sys.executable, "-m", "backends.train"]
    return subprocess.run(
        command, cwd=root, capture_output=True, text=True
    )
