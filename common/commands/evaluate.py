"""`run.py evaluate`: compute the test accuracy of a weights file."""

import numpy as np

from common.commands.session import network, normalization, session_of
from common.commands.training import predict_all
from common.config import TrainConfig
from common.errors import counted
from common.interface import Registry
from common.metrics import Timer


def run(config: TrainConfig, registry: Registry) -> int:
    """Compute and record the accuracy on the test images, and return the exit code."""
    with session_of("evaluate", config, registry) as session:
        test = session.data.test
        net = network(session, config.seed)
        timer = Timer()
        # Unlike `evaluate_accuracy_gpu`, this refuses logits that are not finite, which `argmax` would give a label.
        augs, device = normalization(session), session.devices[0]
        labels = predict_all(session.backend, config, net, test, augs, device)
        accuracy = float(np.mean(labels == test.labels))
        summary = {"test_acc": accuracy, "examples": len(test), "seconds": timer.stop()}
        session.console.print(f"test acc {accuracy:.3f} on {counted(len(test), 'image')}")
        session.folder.write_json("summary.json", summary)
    return 0
