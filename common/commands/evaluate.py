"""`run.py evaluate`: compute the accuracy of a weights file on the held-out images, by class too."""

import numpy as np

from common.commands import results
from common.commands.session import network, normalization, session_of
from common.commands.training import predict_all
from common.config import TrainConfig
from common.errors import counted
from common.interface import Registry
from common.metrics import Timer


def run(config: TrainConfig, registry: Registry) -> int:
    """Compute and record the accuracy on the held-out images, draw the mistakes, and return the exit code."""
    with session_of("evaluate", config, registry) as session:
        test = session.data.test
        net = network(session, config.seed)
        timer = Timer()
        # Unlike `evaluate_accuracy_gpu`, this refuses logits that are not finite, which `argmax` would give a label.
        augs, device = normalization(session), session.devices[0]
        predictions = predict_all(session.backend, config, net, test, augs, device)
        accuracy = float(np.mean(predictions.labels == test.labels))
        held_out, seconds, console = session.data.held_out, timer.stop(), session.console
        console.print(f"{held_out} acc {accuracy:.3f} on {counted(len(test), 'image')}")
        if session.keeps:
            path, about = session.folder.path, (held_out, session.data.name, config.backend)
            confusion = results.report(console, path, test, predictions, *about)
            summary = {f"{held_out}_acc": accuracy, "examples": len(test), "seconds": seconds}
            session.folder.write_json("summary.json", summary | confusion.plain())
    return 0
