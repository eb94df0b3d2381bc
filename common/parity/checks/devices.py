"""Parity of the devices: the functions of `devices` whose correct result is known."""

from collections.abc import Iterator

from common.errors import UserError
from common.interface import Backend, Devices
from common.parity.comparison import CheckResult, Difference
from common.parity.tolerances import tolerance
from common.system.environment import cores


def device_checks(backend: Backend) -> Iterator[CheckResult]:
    """Check names, choices and descriptions of devices, on a machine with or without GPUs."""
    answers = _answers(backend.devices)
    workers = backend.loaders.get_dataloader_workers()
    answers["get_dataloader_workers: 4, or the cores"] = workers == min(4, cores())
    found = tuple(Difference(place, float(not right)) for place, right in answers.items())
    yield CheckResult("devices", "float32", found, tolerance("devices", "float32"))


def _answers(devices: Devices) -> dict[str, bool]:
    """Return whether each result is correct."""
    cpu, count = devices.cpu(), devices.num_gpus()
    gpus = [devices.gpu(i) for i in range(count)]
    described = devices.describe([cpu], "fp32")
    return {
        "cpu and gpu are three devices": _all_differ([cpu, devices.gpu(), devices.gpu(1)]),
        "gpu() is gpu(0)": devices.gpu() == devices.gpu(0),
        "try_gpu without such a GPU": devices.try_gpu(count) == cpu,
        "try_gpu": [devices.try_gpu(i) for i in range(count)] == gpus,
        "try_all_gpus": devices.try_all_gpus() == (gpus or [cpu]),
        "get_devices of cpu": devices.get_devices("cpu") == [cpu],
        "get_devices of auto": devices.get_devices("auto") == (gpus[:1] or [cpu]),
        "get_devices of gpu": _chosen(devices, "gpu") == (gpus or None),
        "get_devices of each GPU": all(
            devices.get_devices(f"gpu:{i}") == [gpu] for i, gpu in enumerate(gpus)
        ),
        "get_devices of a missing GPU": _chosen(devices, f"gpu:{count}") is None,
        "describe: precision": described.get("precision") == "fp32",
        "describe: device": described.get("device", "").startswith("cpu"),
    }


def _chosen(devices: Devices, name: str) -> list[object] | None:
    """Return the devices that --device selects, or None if it is an error."""
    try:
        return devices.get_devices(name)
    except UserError:
        return None


def _all_differ(found: list[object]) -> bool:
    return all(a != b for i, a in enumerate(found) for b in found[:i])
