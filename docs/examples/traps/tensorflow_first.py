"""TensorFlow and PyTorch's Triton in one process."""


def trap():
    """Import both."""
    import tensorflow  # noqa: F401
    import triton  # noqa: F401


def fixed():
    """Import both."""
    import triton  # noqa: F401, I001
    import tensorflow  # noqa: F401
