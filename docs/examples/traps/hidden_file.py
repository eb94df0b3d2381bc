"""A folder of images with a file that is not an image."""


def trap(names, labels):
    """Return the label of each image by its id."""
    return [labels[name.split(".")[0]] for name in names]


def fixed(names, labels):
    """Return the label of each image by its id."""
    return [
        labels[name.removesuffix(".png")]
        for name in names
        if name.endswith(".png")
    ]
