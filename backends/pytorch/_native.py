"""torchvision's own transforms, with a workaround for a bug."""

from torchvision import transforms


class RandomResizedCrop(transforms.RandomResizedCrop):
    """torchvision's random crop, with a box of at least one pixel.

    If no box fits a narrow picture, the one in the middle may be empty, and
    torchvision returns a black image.
    """

    @staticmethod
    def get_params(img, scale, ratio):
        top, left, height, width = transforms.RandomResizedCrop.get_params(
            img, scale, ratio
        )
        return top, left, max(height, 1), max(width, 1)
