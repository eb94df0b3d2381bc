"""Titles and captions for pictures of augmented images: the augmentations, and the parameters drawn for an image."""

from collections.abc import Sequence

from common.augmentation.decisions import Decision
from common.augmentation.operations import Augmentation, ColorJitter


def described(augmentations: Sequence[Augmentation], drawn_by: str = "") -> str:
    """Return the augmentations with their numbers, one per line, for the title of a picture.

    ``drawn_by`` is the title of the framework that draws the random parameters in the native pipeline. A ColorJitter is
    then described only by its arguments, because their meaning differs: TensorFlow adds to the brightness instead of
    multiplying it.
    """
    lines = [
        aug.arguments if drawn_by and isinstance(aug, ColorJitter) else str(aug)
        for aug in augmentations
    ]
    if drawn_by:
        lines.append(f"drawn by {drawn_by}")
    return "\n".join(filter(None, lines))


def captions(decisions: Sequence[Decision], i: int, short: bool = False) -> str:
    """Return the parameters that ``decisions`` drew for image ``i``, one per line, in the order of application.

    A box is height x width at (top, left), in pixels; ``short`` omits the corner. A resize of the whole image and a
    Normalize have no random parameters, and no line.
    """
    lines = [line for decision in decisions for line in decision.caption(i)]
    if all(line.startswith("not ") for line in lines):
        return "unchanged"
    return "\n".join(line.partition(" at ")[0] if short else line for line in lines)
