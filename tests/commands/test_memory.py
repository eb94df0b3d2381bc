"""If memory runs out, the error is one line: each framework's real error on the CPU, and its error on a GPU."""

import sys

import pytest
from conftest import load_or_skip, python

from common.errors import UserError
from common.system.memory import memory_errors

LARGE = 2**50  # bytes


def ask_numpy() -> None:
    import numpy as np

    np.zeros(LARGE, np.uint8).fill(1)


def ask_pytorch() -> None:
    load_or_skip("pytorch")
    import torch

    torch.zeros(LARGE, dtype=torch.uint8)


def ask_tensorflow() -> None:
    load_or_skip("tensorflow")
    import tensorflow as tf

    tf.zeros((2**25, 2**25), tf.uint8)


@pytest.mark.parametrize(
    "ask", [ask_numpy, ask_pytorch, ask_tensorflow], ids=lambda ask: ask.__name__[4:]
)
def test_memory_that_runs_out_on_the_cpu_is_one_line(ask):
    with (
        pytest.raises(UserError, match=r"^memory ran out.*: use a smaller --batch-size.*$"),
        memory_errors(),
    ):
        ask()


@pytest.mark.parametrize(
    "words",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 139.00 GiB.",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "OOM when allocating tensor with shape[4096,64,32,32] on /job:localhost/device:GPU:0 by GPU_0_bfc",
        'Traceback (most recent call last):\n  File "a.cc"\ncudaMalloc retry failed: out of memory',
    ],
    ids=["PyTorch", "cuDNN", "TensorFlow", "MXNet"],
)
def test_memory_of_a_gpu_that_runs_out_is_said_in_the_framework_s_words(words):
    with pytest.raises(UserError) as refused, memory_errors():
        raise RuntimeError(words)
    assert words.splitlines()[-1] in str(refused.value)
    assert "\n" not in str(refused.value)


def test_another_error_keeps_its_traceback():
    with pytest.raises(RuntimeError, match="shapes differ"), memory_errors():
        raise RuntimeError("shapes differ")
    with pytest.raises(UserError, match="a worker is out of memory"), memory_errors():
        raise UserError("a worker is out of memory")


# Leaves a process 256 MiB more than it has.
LIMIT = (
    "import resource, sys\n"
    "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
    "resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, used + 2**28))\n"
)
only_linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux limits the address space")


@only_linux
def test_mxnet_that_may_not_have_more_memory_says_so_in_one_line():
    """It has no arrays that are too large for this machine: theirs have less than 2^31 elements."""
    load_or_skip("mxnet")
    code = (
        "import backends; backends.load('mxnet')\n"
        "from mxnet import np\n"
        "from common.system.memory import memory_errors\n"
        f"{LIMIT}"
        "try:\n"
        "    with memory_errors():\n"
        "        np.zeros(2**29).wait_to_read()\n"
        "except backends.UserError as error:\n"
        "    print(error)"
    )
    done = python(code)
    assert done.stdout.startswith("memory ran out (MXNetError: Failed to allocate CPU Memory): use")


@only_linux
def test_a_run_that_needs_too_much_memory_ends_in_one_line(tmp_path):
    load_or_skip("pytorch")
    command = ["--backend", "pytorch", "--batch-size", "100", "--output", str(tmp_path)]
    code = f"import run, backends\nbackends.load('pytorch')\n{LIMIT}sys.exit(run.main({command}))"
    done = python(code)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: memory ran out")
    assert "Traceback" not in done.stderr
