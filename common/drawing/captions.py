"""Captions for pictures of augmented images: what an augmentation may do, and what was drawn for one image."""

from collections.abc import Sequence

from common.augmentation.decisions import Decision
from common.augmentation.operations import Augmentation, ColorJitter


def described(augmentations: Sequence[Augmentation], drawn_by: str = "") -> str:
    """Return the augmentations with their numbers, one a line, for the title of a picture.

    ``drawn_by`` is the title of the framework if that draws by itself. Then only the arguments of a ColorJitter are
    given, not what they mean: TensorFlow, for example, adds to the brightness instead of multiplying it.
    """
    lines = [
        aug.arguments if drawn_by and isinstance(aug, ColorJitter) else str(aug)
        for aug in augmentations
    ]
    if drawn_by:
        lines.append(f"drawn by {drawn_by}")
    return "\n".join(filter(None, lines))


def captions(decisions: Sequence[Decision], i: int, short: bool = False) -> str:
    """Return what ``decisions`` drew for image ``i``, one a line, in the order of application.

    A box is height x width at (top, left), in pixels; ``short`` leaves the corner out. A resize of the whole image and
    a Normalize draw nothing, and have no line.
    """
    lines = [line for decision in decisions for line in decision.caption(i)]
    if all(line.startswith("not ") for line in lines):
        return "as it was"
    return "\n".join(line.partition(" at ")[0] if short else line for line in lines)
