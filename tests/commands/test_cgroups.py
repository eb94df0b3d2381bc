"""The limits of a container, in the files that Docker, Kubernetes and systemd make on Linux."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.system import environment
from common.system.cgroups import cpu_quota, memory_limit

ROOT = Path(__file__).parents[2]
V1 = Path("/sys/fs/cgroup/cpu")
NOT_LIMITED = "9223372036854771712"  # in version 1

HOST_1 = (
    "8:memory:/docker/ab\n4:cpu,cpuacct:/docker/ab\n1:name=systemd:/docker/ab\n0::/system.slice\n"
)
V2 = "30 23 0:26 {top} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
CPU_1 = "33 25 0:28 {top} /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n"
MEMORY_1 = "36 25 0:31 {top} /sys/fs/cgroup/memory ro shared:9 master:2 - cgroup cgroup rw,memory\n"
OTHER = (
    "22 28 0:20 / /proc rw - proc proc rw\n31 25 0:29 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
    "40 28 0:35 / /mnt/with\\040space rw - ext4 /dev/sda1 rw,data=ordered\n"
)


def system(root: Path, groups: str, mounts: str, files: dict[str, str]) -> Path:
    """Write /proc/self and the files of the control groups below ``root``."""
    files = {"proc/self/cgroup": groups, "proc/self/mountinfo": OTHER + mounts} | {
        f"sys/fs/cgroup/{name}": text for name, text in files.items()
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


CASES = {
    "Docker, version 2, docker run --cpus 1.5 -m 512m": (
        "0::/\n",
        V2.format(top="/"),
        {"cpu.max": "150000 100000\n", "memory.max": "536870912\n"},
        (1.5, 536870912),
    ),
    "Docker, version 2, without limits": (
        "0::/\n",
        V2.format(top="/"),
        {"cpu.max": "max 100000\n", "memory.max": "max\n"},
        (None, None),
    ),
    "version 2, in the host's name space": (
        "0::/system.slice/docker-ab.scope\n",
        V2.format(top="/"),
        {
            "system.slice/docker-ab.scope/cpu.max": "50000 100000\n",
            "system.slice/docker-ab.scope/memory.max": "max\n",
            "system.slice/memory.max": "1073741824\n",  # the limit of a group above it
        },
        (0.5, 1073741824),
    ),
    "Kubernetes, version 2: the pod has less than the container": (
        "0::/pod/container\n",
        V2.format(top="/"),
        {"pod/cpu.max": "200000 100000\n", "pod/container/cpu.max": "400000 100000\n"},
        (2.0, None),
    ),
    "Docker, version 1: the mount shows the container's group": (
        HOST_1,
        CPU_1.format(top="/docker/ab") + MEMORY_1.format(top="/docker/ab"),
        {
            "cpu,cpuacct/cpu.cfs_quota_us": "250000\n",
            "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            "memory/memory.limit_in_bytes": "268435456\n",
        },
        (2.5, 268435456),
    ),
    "version 1, in the host's name space, without limits": (
        HOST_1,
        CPU_1.format(top="/") + MEMORY_1.format(top="/"),
        {
            "cpu,cpuacct/docker/ab/cpu.cfs_quota_us": "-1\n",
            "cpu,cpuacct/docker/ab/cpu.cfs_period_us": "100000\n",
            "memory/docker/ab/memory.limit_in_bytes": NOT_LIMITED,
        },
        (None, int(NOT_LIMITED)),
    ),
    "version 1, a name that only the host knows": (
        HOST_1,
        CPU_1.format(top="/kubepods/pod1/cd"),
        {"cpu,cpuacct/cpu.cfs_quota_us": "100000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"},
        (1.0, None),
    ),
    "both: processors in version 1, memory in version 2": (
        "1:cpu:/\n0::/a\n",
        CPU_1.format(top="/") + V2.format(top="/"),
        {
            "cpu,cpuacct/cpu.cfs_quota_us": "300000\n",
            "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            "a/memory.max": "1000000\n",
        },
        (3.0, 1000000),
    ),
    "no control groups": ("", "", {}, (None, None)),
}


@pytest.mark.parametrize("name", CASES)
def test_the_limits_are_those_of_the_group_and_of_the_groups_above_it(name, tmp_path):
    groups, mounts, files, expected = CASES[name]
    root = system(tmp_path, groups, mounts, files)
    assert (cpu_quota(root), memory_limit(root)) == expected


def test_a_system_without_proc_has_no_limits(tmp_path):
    assert (cpu_quota(tmp_path), memory_limit(tmp_path)) == (None, None)


FRAGMENTS = st.sampled_from(
    ["0::/", "4:cpu,cpuacct:/x", "\n", "..", "max", "100000", " ", "-1", "0", "\xff", "²", " - cgroup2 cgroup2 rw"]
)  # fmt: skip
TEXTS = st.lists(FRAGMENTS | st.text(max_size=3), max_size=12).map("".join)


@settings(max_examples=150, deadline=None)
@given(groups=TEXTS, mounts=TEXTS, cpu=TEXTS, memory=TEXTS)
def test_files_of_any_content_give_a_limit_or_none(tmp_path_factory, groups, mounts, cpu, memory):
    root = system(
        tmp_path_factory.mktemp("system"),
        "0::/\n4:cpu,cpuacct:/\n" + groups,
        V2.format(top="/") + CPU_1.format(top="/") + mounts,
        {
            "cpu.max": cpu,
            "memory.max": memory,
            "cpu,cpuacct/cpu.cfs_quota_us": memory,
            "cpu,cpuacct/cpu.cfs_period_us": cpu,
        },
    )
    quota, limit = cpu_quota(root), memory_limit(root)
    assert quota is None or quota > 0
    assert limit is None or limit >= 0


@pytest.mark.parametrize(
    ("quota", "seen", "expected"), [(None, 3, 3), (1.5, 3, 2), (0.2, 3, 1), (2.0, 3, 2), (64.0, 3, 3)]
)  # fmt: skip
def test_cores_are_a_quota_rounded_up_and_not_more_than_there_are(
    monkeypatch, quota, seen, expected
):
    monkeypatch.setattr(environment, "visible_cores", lambda: seen)
    monkeypatch.setattr(environment, "cpu_quota", lambda: quota)
    assert environment.cores() == expected
    limits = environment.thread_limits("OMP_NUM_THREADS")
    assert limits == ({"OMP_NUM_THREADS": str(expected)} if expected < seen else {})


def test_the_record_names_the_memory_that_a_container_may_use(monkeypatch):
    monkeypatch.setattr(environment, "memory_limit", lambda: 2**29)
    assert environment.hardware()["memory"] == "0.5 GiB"
    monkeypatch.setattr(environment, "memory_limit", lambda: int(NOT_LIMITED))
    assert 0.5 < float(environment.hardware()["memory"].removesuffix(" GiB")) < 2**20


SCRIPT = """
import sys
import backends
backend = backends.load(sys.argv[1])
devices = backend.devices
print(devices.describe([devices.cpu()])["threads"], backend.loaders.get_dataloader_workers())
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.access(V1, os.W_OK), reason="needs root and control groups of version 1")
def test_threads_and_workers_keep_a_real_quota_of_half_a_processor(backend, tmp_path):
    group = V1 / f"three-tabs-{os.getpid()}"
    group.mkdir()
    try:
        (group / "cpu.cfs_quota_us").write_text("50000")
        enter = f"echo $$ > {group}/cgroup.procs && exec"
        command = ["sh", "-c", f'{enter} "$0" -c "$1" {backend.name}', sys.executable, SCRIPT]
        env = {name: value for name, value in os.environ.items() if "NUM_THREADS" not in name}
        out = subprocess.run(command, cwd=ROOT, env=env, check=True, stdout=subprocess.PIPE).stdout
    finally:
        group.rmdir()
    assert out.split() == [b"1", b"1"]
