"""Compare a port's training with the original's, as a table that the examples print."""

from common.parity import compare_arrays

COLUMNS = ("step 1", "step 2", "step 3", "weights", "mean", "variance")
STATISTICS = {"mean": "running_mean", "variance": "running_var"}


def divergence(losses, port_losses, weights, port_weights):
    """Return the largest relative difference by column: each step's loss, and the final weights and statistics.

    ``weights`` and ``port_weights`` are NumPy arrays by Gluon's names, in its layout.
    """
    found = {
        f"step {i}": abs(theirs - ours) / abs(ours)
        for i, (ours, theirs) in enumerate(zip(losses, port_losses, strict=True), start=1)
    }
    for column in COLUMNS[3:]:
        names = [name for name in weights if column_of(name) == column]
        ours, theirs = (
            {name: arrays[name] for name in names} for arrays in (weights, port_weights)
        )
        found[column] = max(layer.relative for layer in compare_arrays(ours, theirs).layers)
    return found


def rows_of(ports, trained_port, before, losses, after):
    """Return how much ports differ, by title. ``trained_port`` trains each from the original's weights ``before``.

    ``losses`` and ``after`` are the original's. ``ports`` holds the settings
    of each port's network and training.
    """
    return {
        title: divergence(losses, port_losses, after, weights)
        for title, settings in ports.items()
        for port_losses, weights in [trained_port(before, after, *settings)]
    }


def column_of(name):
    """Return the column of an array: a statistic's, or "weights" for everything that is trained."""
    return next((column for column, end in STATISTICS.items() if name.endswith(end)), "weights")


def table(rows):
    """Return rows by title as text. Differences below 1e-12 are float64 rounding and are shown as 0."""
    width = max(map(len, rows))
    lines = [" " * width + "".join(f"{column:>10}" for column in COLUMNS)]
    for title, found in rows.items():
        numbers = (0.0 if found[column] < 1e-12 else found[column] for column in COLUMNS)
        lines.append(f"{title:<{width}}" + "".join(f"{number:>10.1g}" for number in numbers))
    return "\n".join(lines)
