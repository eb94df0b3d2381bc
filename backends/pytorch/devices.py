"""CPU and GPUs as PyTorch names them, and what is in force there."""

import torch

from common.environment import gpu_indices, processor

image_layout = "NCHW"


def cpu():
    """Return the CPU device."""
    return torch.device("cpu")


def gpu(i=0):
    """Return the i-th GPU device."""
    return torch.device(f"cuda:{i}")


def num_gpus():
    """Return the number of GPUs that the framework can use."""
    return torch.cuda.device_count()


def try_gpu(i=0):
    """Return gpu(i) if it exists, otherwise cpu()."""
    return gpu(i) if num_gpus() >= i + 1 else cpu()


def try_all_gpus():
    """Return all available GPUs, or [cpu()] if there is no GPU."""
    return [gpu(i) for i in range(num_gpus())] or [cpu()]


def get_devices(name):
    """Return the devices of 'auto', 'cpu', 'gpu' or numbers as 'gpu:0,1'."""
    return [gpu(i) for i in gpu_indices(name, num_gpus())] or [cpu()]


def describe(devices, precision):
    """Return what computes, and which settings are in force there."""
    if devices[0].type == "cpu":
        capability = torch.backends.cpu.get_cpu_capability()
        return {
            "device": f"cpu: {processor()}",
            "threads": str(torch.get_num_threads()),
            "instructions": capability,
            "precision": precision,
        }
    names = [torch.cuda.get_device_name(device) for device in devices]
    tf32 = torch.backends.cudnn.allow_tf32 and precision == "fp32"
    return {
        "device": ", ".join(
            f"{device}: {name}"
            for device, name in zip(devices, names, strict=True)
        ),
        "precision": precision + (", TF32 convolutions" if tf32 else ""),
    }


def from_numpy(array, device=None):
    """Return a NumPy array as a tensor of the same type and layout."""
    return torch.as_tensor(array, device=device)


def to_numpy(X):
    """Return a tensor's values as a NumPy array, in the same layout."""
    return X.detach().cpu().numpy()


def set_seed(seed):
    """Seed every random generator of the framework."""
    torch.manual_seed(seed)
