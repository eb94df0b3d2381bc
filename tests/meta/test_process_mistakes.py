"""The checks of several processes reject every mistake planted in the tabs or in the batches of the processes."""

import shutil
from pathlib import Path

import pytest
from conftest import load_or_skip

import backends
from common.parity.checks.processes import CASES, Case, process_checks

ROOT = Path(backends.__file__).parents[1]
TRAINED = "losses", "weights", "buffers", "state"


PER_PART, SYNCHRONISED, KAGGLE = CASES


def of(*parts: str, case: Case = PER_PART) -> set[str]:
    return {f"{case.name}: {part}" for part in parts}


# A mistake in two processes: its file, the right text and the wrong one for each backend; the checks that reject it.
# One backend is enough for a mistake that tests the checks. Those in what only a tab does are planted in all three.
MISTAKES: dict[str, tuple[dict[str, tuple[str, str, str]], set[str]]] = {
    "the gradient is scaled by the number of processes": (
        {
            "pytorch": (
                "_wrappers",
                "num_examples * num_processes() / total",
                "num_examples / total",
            ),
        },
        of(*TRAINED),
    ),
    "the gradient is divided by the local batch": (
        {
            "mxnet": ("trainer", "devices, split_f, total(len(y))", "devices, split_f, 2 * len(y)"),
        },
        of(*TRAINED),
    ),
    "the running statistics are those of rank 0": (
        {
            "pytorch": (
                "processes",
                "dist.all_reduce(buffer)\n                    buffer /= num_processes()",
                "dist.broadcast(buffer, 0)",
            ),
            "mxnet": (
                "processes",
                "total(array.asnumpy()) / num_processes()",
                "total(array.asnumpy() * (rank() == 0))",
            ),
            "tensorflow": (
                "_layers",
                'mean, variance = _all_reduce("MEAN", [mean, variance])',
                "first = tf.distribute.get_replica_context().replica_id_in_sync_group == 0\n"
                "                first = tf.cast(first, mean.dtype)\n"
                '                mean, variance = _all_reduce("SUM", [first * mean, first * variance])',
            ),
        },
        of("buffers"),
    ),
    "the gradients of one layer are not added up": (
        {
            "pytorch": (
                "processes",
                "    net = DistributedDataParallel(",
                "    net._ddp_params_and_buffers_to_ignore = ['conv.weight']\n"
                "    net = DistributedDataParallel(",
            ),
            "mxnet": (
                "_stores",
                '        if len(value) == 1 and value[0].dtype == "float64":\n',
                "        if key == 0:\n"
                "            return\n"
                '        if len(value) == 1 and value[0].dtype == "float64":\n',
            ),
            "tensorflow": (
                "_replicas",
                "        trainer.apply(gradients, net.trainable_variables)\n",
                "        first = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group == 0, X.dtype)\n"
                "        gradients[0] = first * gradients[0]\n"
                "        trainer.apply(gradients, net.trainable_variables)\n",
            ),
        },
        of("weights", "state"),
    ),
    "each process has another augmentation": (
        {
            "tensorflow": (
                "loaders",
                "decide(self.augs, indices, self.seed, epoch, size)",
                "decide(self.augs, indices, self.seed + self.part[0], epoch, size)",
            ),
        },
        of("batches"),
    ),
    "each process reports the accuracy of its own part": (
        {
            "mxnet": (
                "trainer",
                "correct, examples = total([metric[0], metric[1]])",
                "correct, examples = metric[0], metric[1]",
            ),
        },
        of("metrics", "equal ranks"),
    ),
    "synchronised statistics are wrong for parts of different sizes": (
        {
            "tensorflow": (
                "_layers",
                'count = _all_reduce("SUM", tf.cast(own_count, X.dtype))',
                "count = 2 * tf.cast(own_count, X.dtype)",
            ),
        },
        of("losses", "weights", "buffers", case=SYNCHRONISED),
    ),
    "synchronised statistics have the gradient of one process": (
        {
            "pytorch": ("_sync_batch_norm", "return _AddUp.apply(gradient)", "return gradient"),
        },
        of("weights", "state", case=SYNCHRONISED),
    ),
    "kaggle.train leaves the running statistics as they are": (
        {"pytorch": ("kaggle", "        average_buffers(net)\n", "")},
        of("buffers", "equal ranks", case=KAGGLE),
    ),
    # The batches are those of common.augmentation, the same for every backend.
    "both processes have the first half": (
        {
            "pytorch": (
                "../../common/augmentation/decisions",
                "np.array_split(batch, num_processes)[rank]",
                "np.array_split(batch, num_processes)[0]",
            )
        },
        of("batches"),
    ),
    "the last batch is left out": (
        {
            "pytorch": (
                "../../common/augmentation/decisions",
                "        if len(own):\n",
                "        if len(batch) == batch_size:\n",
            )
        },
        of("batches", "metrics"),
    ),
}
PLANTED = [(name, backend) for name, (edits, _) in MISTAKES.items() for backend in edits]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("name", "mistaken"), PLANTED)
def test_a_mistake_in_two_processes_is_rejected(name, mistaken, tmp_path):
    backend = load_or_skip(mistaken)
    edits, expected = MISTAKES[name]
    file, right, wrong = edits[mistaken]
    for package in ("backends", "common"):
        shutil.copytree(ROOT / package, tmp_path / package)
    path = tmp_path / "backends" / mistaken / f"{file}.py"
    source = path.read_text(encoding="utf-8")
    assert source.count(right) == 1
    path.write_text(source.replace(right, wrong), encoding="utf-8")
    cases = [case for case in CASES if any(check.startswith(f"{case.name}:") for check in expected)]
    results = process_checks(backend, 0, cases, root=tmp_path)
    assert expected - {result.check for result in results if not result.passed} == set()
