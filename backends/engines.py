"""The engine of each framework for several processes.

Environment variables tell each process its role. `python run.py --processes`
sets them for one machine. For several machines, a user sets the same
variables, or lets `torchrun` do it.
"""

import json
import os
import signal
from collections.abc import Callable, Mapping, Sequence

from common.interface import Engine, Role
from common.system.environment import VISIBLE_GPUS

HOST = "127.0.0.1"


def _torchrun_roles(
    num_processes: int,
    free_port: Callable[[], int],
    gpus: Sequence[str],  # noqa: ARG001
) -> list[Role]:
    """Return the processes of PyTorch, as torchrun starts them.

    Each takes the GPU of its LOCAL_RANK.
    """
    shared = {
        "WORLD_SIZE": str(num_processes),
        "MASTER_ADDR": HOST,
        "MASTER_PORT": str(free_port()),
    }
    return [
        Role(
            f"rank {rank}",
            {"RANK": str(rank), "LOCAL_RANK": str(rank)} | shared,
        )
        for rank in range(num_processes)
    ]


def _tf_config_roles(
    num_processes: int,
    free_port: Callable[[], int],
    gpus: Sequence[str],
) -> list[Role]:
    """Return the workers of TensorFlow; each knows the addresses of all.

    Each sees only its own of the `gpus`, because it takes all that it sees.
    """
    workers = [f"{HOST}:{free_port()}" for _ in range(num_processes)]
    return [
        Role(
            f"rank {rank}",
            {
                "TF_CONFIG": json.dumps(
                    {
                        "cluster": {"worker": workers},
                        "task": {"type": "worker", "index": rank},
                    }
                )
            }
            | _gpu(gpus, rank),
        )
        for rank in range(num_processes)
    ]


def _ps_lite_roles(
    num_processes: int,
    free_port: Callable[[], int],
    gpus: Sequence[str],
) -> list[Role]:
    """Return the workers of MXNet, a server, and the scheduler.

    The scheduler numbers the workers in any order. Each worker sees only its
    own of the `gpus`.
    """
    shared = {
        "DMLC_NUM_WORKER": str(num_processes),
        "DMLC_NUM_SERVER": "1",
        "DMLC_PS_ROOT_URI": HOST,
        "DMLC_PS_ROOT_PORT": str(free_port()),
    }
    servers = [
        Role(name, {"DMLC_ROLE": name} | shared)
        for name in ("scheduler", "server")
    ]
    workers = [
        Role(f"worker {i}", {"DMLC_ROLE": "worker"} | shared | _gpu(gpus, i))
        for i in range(num_processes)
    ]
    return [*servers, *workers]


def serve_until_signal() -> None:
    """Let Ctrl-C and SIGTERM end a scheduler or a server of MXNet.

    The import of MXNet serves, and it never returns to Python's own handlers.
    """
    if os.environ.get("DMLC_ROLE") in ("scheduler", "server"):
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)


def _gpu(gpus: Sequence[str], number: int) -> dict[str, str]:
    return {VISIBLE_GPUS: gpus[number]} if gpus else {}


def _torchrun_addresses(variables: Mapping[str, str]) -> list[str]:
    """Return the address of PyTorch's first process."""
    return [f"{variables['MASTER_ADDR']}:{variables['MASTER_PORT']}"]


def _tf_config_addresses(variables: Mapping[str, str]) -> list[str]:
    """Return the addresses of all workers of TensorFlow."""
    cluster: dict[str, list[str]] = json.loads(variables["TF_CONFIG"])[
        "cluster"
    ]
    return [address for task in cluster.values() for address in task]


def _ps_lite_addresses(variables: Mapping[str, str]) -> list[str]:
    """Return the address of MXNet's scheduler."""
    names = "DMLC_PS_ROOT_URI", "DMLC_PS_ROOT_PORT"
    return [":".join(variables[name] for name in names)]


TORCHRUN = Engine(
    _torchrun_roles,
    "WORLD_SIZE",
    _torchrun_addresses,
    reachable="set GLOO_SOCKET_IFNAME, on GPUs NCCL_SOCKET_IFNAME, to the "
    "network interface of each host, such as eth0",
    lost=("/gloo/transport/", "ncclRemoteError"),
    skips_finalizers=True,  # they abort now and then
)
PS_LITE = Engine(
    _ps_lite_roles,
    "DMLC_ROLE",
    _ps_lite_addresses,
    reachable="set DMLC_INTERFACE to the network interface of each host, such "
    "as eth0",
    no_sync_batch_norm="Gluon's SyncBatchNorm joins only the devices of one "
    "process: leave the option out, or choose another --backend",
)
TF_CONFIG = Engine(
    _tf_config_roles,
    "TF_CONFIG",
    _tf_config_addresses,
    reachable="give IP addresses in TF_CONFIG, not names of hosts",
    lost=("Collective ops is aborted by",),
)
