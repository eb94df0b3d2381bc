"""The first of all GPUs, on a machine without a GPU."""


def trap():
    """Return the device to train on."""
    import torch

    count = torch.cuda.device_count()
    devices = [
        torch.device("cuda", i) for i in range(count)
    ]
    return devices[0]


def fixed():
    """Return the device to train on."""
    import torch

    count = torch.cuda.device_count()
    devices = [
        torch.device("cuda", i) for i in range(count)
    ]
    return (devices or [torch.device("cpu")])[0]
