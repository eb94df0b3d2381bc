"""A split that follows the order in which the disk lists its files."""

import os


def trap(folder, num_valid):
    """Return the names of the images to validate on."""
    return os.listdir(folder)[:num_valid]


def fixed(folder, num_valid):
    """Return the names of the images to validate on."""

    def image_id(name):
        return int(name.removesuffix(".png"))

    names = sorted(os.listdir(folder), key=image_id)
    return names[:num_valid]
