"""A list of transforms that Gluon's Compose modifies."""


def trap(augs):
    """Return the transforms as one."""
    from mxnet.gluon.data.vision import transforms

    return transforms.Compose(augs)


def fixed(augs):
    """Return the transforms as one."""
    from mxnet.gluon.data.vision import transforms

    return transforms.Compose([*augs])
