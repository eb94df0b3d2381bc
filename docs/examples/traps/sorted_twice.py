"""Images that are sorted into folders again, with another ratio."""

import shutil


def trap(images, out, num_valid):
    """Copy images into out/valid and out/train."""
    for i, image in enumerate(images):
        split = "valid" if i < num_valid else "train"
        (out / split).mkdir(parents=True, exist_ok=True)
        shutil.copy(image, out / split)


def fixed(images, out, num_valid):
    """Copy images into out/valid and out/train."""
    shutil.rmtree(out, ignore_errors=True)
    for i, image in enumerate(images):
        split = "valid" if i < num_valid else "train"
        (out / split).mkdir(parents=True, exist_ok=True)
        shutil.copy(image, out / split)
