"""Two hosts: network namespaces with a cable between them, each engine with its own variables, and what may fail."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from killed_runs import results
from test_run import ROOT, metrics

from common.interface import Backend

pytestmark = pytest.mark.slow
ADDRESSES = ("10.77.0.1", "10.77.0.2")
PORT = 29500  # in namespaces, where no other program can use it
LATE = 15  # seconds
EPOCHS = 6
# Like run.py, with shorter times, and a checkpoint after each epoch.
DRIVER = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import run
from common.commands import checkpoints, train, waiting
from common.system.processes import end_program

checkpoints.SHARE = float("inf")
train.show = lambda *arguments: None
waiting.SECONDS_TO_SAY, waiting.SECONDS_TO_GIVE_UP = 5.0, 20.0
run.__file__ = __file__  # also for the processes of --processes
if __name__ == "__main__":
    end_program(run.main(sys.argv[1:]))
"""
LOST = "^error: (no step for .*: )?a process or the network was lost"
_numbers = count()


def variables(name: str, interfaces: list[str]) -> dict[str, tuple[int, dict[str, str]]]:
    """Return the host and the variables of each process, as docs/several-machines.md has them."""
    if name == "pytorch":
        shared = {"WORLD_SIZE": "2", "MASTER_ADDR": ADDRESSES[0], "MASTER_PORT": str(PORT)}
        return {
            f"rank {i}": (i, shared | {"RANK": str(i), "GLOO_SOCKET_IFNAME": interfaces[i]})
            for i in range(2)
        }
    if name == "tensorflow":
        cluster = {"worker": [f"{address}:{PORT}" for address in ADDRESSES]}
        return {
            f"rank {i}": (
                i,
                {
                    "TF_CONFIG": json.dumps(
                        {"cluster": cluster, "task": {"type": "worker", "index": i}}
                    )
                },
            )
            for i in range(2)
        }
    shared = {
        "DMLC_NUM_WORKER": "2",
        "DMLC_NUM_SERVER": "1",
        "DMLC_PS_ROOT_URI": ADDRESSES[0],
        "DMLC_PS_ROOT_PORT": str(PORT),
    }
    hosts = {"scheduler": 0, "server": 0, "worker 0": 0, "worker 1": 1}
    return {role: (host, shared | {"DMLC_ROLE": role.split()[0]}) for role, host in hosts.items()}


class Hosts:
    """Two namespaces, each with one end of a veth pair, and the processes of one training in them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.script = folder, folder / "driver.py"
        self.script.write_text(DRIVER)
        own = f"{os.getpid()}-{next(_numbers)}"
        self.names = [f"tabs-{own}-{i}" for i in range(2)]
        self.interfaces = [f"v{own}-{i}" for i in range(2)]
        self.processes: dict[str, subprocess.Popen[str]] = {}

    def connect(self) -> None:
        """Make the namespaces, or skip the test where this is not possible."""
        for name in self.names:
            made = ip("netns", "add", name, check=False)
            if made.returncode:
                pytest.skip(f"network namespaces cannot be made: {made.stderr.strip()}")
        first, second = self.interfaces
        ends = ["netns", self.names[0], "type", "veth", "peer", "name", second]
        ip("link", "add", first, *ends, "netns", self.names[1])
        for name, interface, address in zip(self.names, self.interfaces, ADDRESSES, strict=True):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", interface)
            ip("-n", name, "link", "set", interface, "up")
            ip("-n", name, "link", "set", "lo", "up")

    def remove(self) -> None:
        """End everything in the namespaces, and remove them."""
        for process in self.processes.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        for name in self.names:
            ip("netns", "del", name, check=False)

    def set_cable(self, state: str) -> None:
        ip("-n", self.names[1], "link", "set", self.interfaces[1], state)

    def start(self, backend: str, *words: object, late: float = 0) -> None:
        """Start all processes of a training, the last one after some seconds."""
        for role, (host, own) in variables(backend, self.interfaces).items():
            if role in ("rank 1", "worker 1"):
                time.sleep(late)
            inside = ["ip", "netns", "exec", self.names[host]]
            self.processes[role] = self.run(words, own, inside)

    def run(self, words: object, own: dict[str, str], inside: list[str]) -> subprocess.Popen[str]:
        """Start run.py with the variables of its engine."""
        return subprocess.Popen(
            [*inside, sys.executable, str(self.script), *map(str, words)],
            env=os.environ | {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1"} | own,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            start_new_session=True,
        )

    @property
    def trains(self) -> dict[str, subprocess.Popen[str]]:
        return {n: p for n, p in self.processes.items() if n not in ("scheduler", "server")}

    def wait_for(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 300
        while not holds():
            for name, process in self.processes.items():
                assert process.poll() is None, (name, process.communicate())
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def ended(self, name: str) -> tuple[int, str, str]:
        """Wait for a process, and return its exit code and both outputs."""
        process = self.processes.pop(name)
        try:
            out, err = process.communicate(timeout=300)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        return process.returncode, out, err

    def all_end_with(self, code: int) -> list[str]:
        """Wait for all that train, require their exit code, and return their errors."""
        errors = []
        for name in self.trains:
            found, out, err = self.ended(name)
            assert found == code, (name, out, err)
            errors.append(err)
        return errors


def ip(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *words], check=check, capture_output=True, text=True)


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    if shutil.which("ip") is None:
        pytest.skip("network namespaces need iproute2")
    made = Hosts(tmp_path)
    try:
        made.connect()
        yield made
    finally:
        made.remove()


def words(backend: Backend, small_folder: Path, output: Path) -> list[object]:
    data = ["--data", small_folder, "--image-size", 8, "--batch-size", 8, "--device", "cpu"]
    return ["--backend", backend.name, *data, "--epochs", EPOCHS, "--output", output]


@pytest.fixture(scope="module")
def one_host(backend, small_folder, tmp_path_factory) -> Path:
    """The folder of a run in two processes of one host."""
    hosts = Hosts(tmp_path_factory.mktemp("one"))
    folder = hosts.folder / "run"
    own = [*words(backend, small_folder, folder), "--processes", 2]
    hosts.processes["one"] = hosts.run(own, {}, [])
    code, _, err = hosts.ended("one")
    assert code == 0, err
    return folder


def test_two_hosts_train_as_two_processes_of_one_do_also_if_one_is_late(
    backend, hosts, small_folder, one_host, tmp_path
):
    hosts.start(backend.name, *words(backend, small_folder, tmp_path / "hosts"), late=LATE)
    hosts.all_end_with(0)
    assert results(tmp_path / "hosts") == results(one_host)


def lose(hosts: Hosts, what: str) -> None:
    """Let one thing fail."""
    if what == "cable":
        hosts.set_cable("down")
        return
    name = "server" if what == "server" else list(hosts.trains)[-1]
    process = hosts.processes.pop(name)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.mark.parametrize("what", ["cable", "worker", "server"])
def test_a_loss_ends_all_and_the_run_goes_on_after_it(
    what, backend, hosts, small_folder, one_host, tmp_path
):
    if what == "server" and backend.name != "mxnet":
        pytest.skip(f"{backend.title} has no servers")
    folder = tmp_path / "hosts"
    hosts.start(backend.name, *words(backend, small_folder, folder))
    hosts.wait_for(lambda: (folder / "metrics.jsonl").exists() and bool(metrics(folder)))
    lose(hosts, what)
    errors = hosts.all_end_with(2)
    assert all(re.search(LOST, error, re.MULTILINE) for error in errors), errors
    assert not any("Traceback" in error for error in errors), errors
    assert 0 < len(metrics(folder)) < EPOCHS
    if what != "worker":  # the folder is as after the loss of a worker
        return
    for name, process in [*hosts.processes.items()]:  # MXNet's scheduler and servers wait on
        os.killpg(process.pid, signal.SIGINT)
        assert hosts.ended(name)[0] == -signal.SIGINT
    hosts.set_cable("up")
    hosts.start(backend.name, "--resume", folder)
    hosts.all_end_with(0)
    assert results(folder) == results(one_host)


def test_a_port_that_is_taken_is_said_in_one_line(backend, tmp_path):
    made = Hosts(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        role, (_, own) = next(iter(variables(backend.name, ["lo", "lo"]).items()))
        address = "127.0.0.1", str(taken.getsockname()[1])
        own = {
            name: value.replace(ADDRESSES[0], address[0]).replace(str(PORT), address[1])
            for name, value in own.items()
        }
        made.processes[role] = made.run(["--backend", backend.name], own, [])
        code, _, err = made.ended(role)
    assert code == 2
    assert re.search(r"^error: .*(not joined the others|cannot listen)", err, re.MULTILINE), err
    assert "Traceback" not in err
