"""How far a port's training has come from the original's, as the examples print it."""

from common.parity import compare_arrays

COLUMNS = ("step 1", "step 2", "step 3", "weights", "mean", "variance")
PARTS = {"mean": "running_mean", "variance": "running_var"}


def parting(losses, port_losses, weights, port_weights):
    """Return by column the largest relative difference: of each step's loss, of the weights and the statistics after.

    ``weights`` and ``port_weights`` are NumPy arrays by Gluon's names, in its layout.
    """
    found = {
        f"step {i}": abs(theirs - ours) / abs(ours)
        for i, (ours, theirs) in enumerate(zip(losses, port_losses, strict=True), start=1)
    }
    for column in COLUMNS[3:]:
        names = [name for name in weights if part_of(name) == column]
        ours, theirs = (
            {name: arrays[name] for name in names} for arrays in (weights, port_weights)
        )
        found[column] = max(layer.relative for layer in compare_arrays(ours, theirs).layers)
    return found


def rows_of(ports, trained_port, before, losses, after):
    """Return how far ports part, by title: each trained by ``trained_port`` from the original's weights ``before``.

    ``losses`` and ``after`` are those of the original. A port is the settings of its network and of its training.
    """
    return {
        title: parting(losses, port_losses, after, weights)
        for title, settings in ports.items()
        for port_losses, weights in [trained_port(before, after, *settings)]
    }


def part_of(name):
    """Return the column that an array belongs to: a statistic's, or that of all that is trained."""
    return next((part for part, end in PARTS.items() if name.endswith(end)), "weights")


def table(rows):
    """Return rows by title as text; what is below 1e-12 is rounding in float64, and shown as 0."""
    width = max(map(len, rows))
    lines = [" " * width + "".join(f"{column:>10}" for column in COLUMNS)]
    for title, found in rows.items():
        numbers = (0.0 if found[column] < 1e-12 else found[column] for column in COLUMNS)
        lines.append(f"{title:<{width}}" + "".join(f"{number:>10.1g}" for number in numbers))
    return "\n".join(lines)
