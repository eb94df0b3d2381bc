"""A default argument that looks for devices."""


def trap(find_devices):
    """Return a training function."""

    def train(devices=find_devices()):
        return f"trained on {devices}"

    return train


def fixed(find_devices):
    """Return a training function."""

    def train(devices=None):
        devices = devices or find_devices()
        return f"trained on {devices}"

    return train
