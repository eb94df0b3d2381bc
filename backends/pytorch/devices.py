"""The CPU and GPUs in PyTorch, and the settings that are active on them."""

import os
import shutil

import torch

from common.errors import UserError
from common.system.environment import gpu_indices, processor, tf32_is_off

from ._sync_batch_norm import require_one_device
from .processes import num_processes

image_layout = "NCHW"
# Variables with which torch.compile silently returns the network itself.
NO_COMPILE = ("TORCH_COMPILE_DISABLE", "TORCHDYNAMO_DISABLE")


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
    """Return the devices named by 'auto', 'cpu', 'gpu' or 'gpu:0,1'.

    Differs: of several processes, each takes one of these GPUs, by LOCAL_RANK.
    In TensorFlow and MXNet each process sees only its own.
    """
    if num_processes() > 1 and name == "auto" and num_gpus():
        name = "gpu"
    numbers = gpu_indices(name, num_gpus())
    if num_processes() > 1 and numbers:
        numbers = [_own(numbers, name)]
        torch.cuda.set_device(numbers[0])
    return [gpu(i) for i in numbers] or [cpu()]


def _own(numbers, name):
    """Return the GPU of this process among those of the machine."""
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if local_rank >= len(numbers):
        raise UserError(
            f"--device {name}: there is no GPU for LOCAL_RANK {local_rank}: "
            "use fewer processes, or --device cpu"
        )
    return numbers[local_rank]


def describe(devices, precision="fp32", compile=False, sync_batch_norm=False):
    """Describe the devices and the settings that are active on them.

    Raises UserError for settings that cannot work on these devices.
    """
    on_cpu = devices[0].type == "cpu"
    if compile and len(devices) > 1:
        raise UserError("--compile needs a single device: add --device gpu:0")
    if compile and num_processes() > 1:
        raise UserError(
            "--compile works in one process: leave out --compile or "
            "--processes"
        )
    if sync_batch_norm:
        require_one_device(devices)
    for name in NO_COMPILE:
        if compile and os.environ.get(name) == "1":
            raise UserError(f"--compile: {name}=1 disables it: unset it")
    compiler = os.environ.get("CXX", "g++")
    if compile and on_cpu and not shutil.which(compiler):
        raise UserError(f"--compile needs {compiler}: install it or set CXX")
    settings = {"precision": precision}
    if on_cpu:
        settings["device"] = f"cpu: {processor()}"
        settings["threads"] = str(torch.get_num_threads())
        settings["instructions"] = torch.backends.cpu.get_cpu_capability()
    else:
        names = [torch.cuda.get_device_name(device) for device in devices]
        settings["device"] = ", ".join(
            f"{device}: {name}"
            for device, name in zip(devices, names, strict=True)
        )
        settings["cuda"] = torch.version.cuda
        if precision == "fp32" and (tf32 := _tf32()):
            settings["precision"] = f"fp32, TF32 in {tf32}"
    if compile:
        on_gpu = "inductor, in CUDA graphs"
        settings["compile"] = "inductor" if on_cpu else on_gpu
    return settings


def _tf32():
    """Return which operations use TF32 on a GPU, '' for none."""
    if tf32_is_off():
        return ""
    products = torch.get_float32_matmul_precision() != "highest"
    convolutions = torch.backends.cudnn.allow_tf32
    names = {"products": products, "convolutions": convolutions}
    return " and ".join(name for name, uses in names.items() if uses)


def from_numpy(array, device=None):
    """Return a NumPy array as a tensor of the same type and layout.

    On the CPU the tensor shares the array's memory. A copy to a GPU goes
    through pinned memory, so that it is asynchronous. From any other memory,
    the host would wait until the GPU has finished its earlier work.
    """
    if device is None or torch.device(device).type != "cuda":
        return torch.as_tensor(array, device=device)
    return torch.as_tensor(array).pin_memory().to(device, non_blocking=True)


def to_numpy(X):
    """Return a tensor's values as a NumPy array, in the same layout.

    bfloat16 becomes float32, because NumPy has no such type.
    """
    if X.dtype == torch.bfloat16:
        X = X.float()
    return X.detach().cpu().numpy()


def set_seed(seed):
    """Seed every random generator of the framework."""
    torch.manual_seed(seed)
