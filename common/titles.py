"""What the frameworks are called where people read of them."""

TITLES = {"pytorch": "PyTorch", "mxnet": "MXNet", "tensorflow": "TensorFlow"}


def title_of(backend: str) -> str:
    """Return the title of a backend's framework; one that is not known here goes by its backend's name."""
    return TITLES.get(backend, backend)
