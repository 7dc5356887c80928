"""Changes of images that deployed networks meet: noise, blur, light, and JPEG, at five severities.

Kinds and amounts are those of Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations, 2019, arXiv:1903.12261: those of ImageNet-C, and of CIFAR-10-C for images of less than 64 pixels.
"""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

SMALL = 64  # pixels of the short side, below which the amounts of CIFAR-10-C are taken
SEVERITIES = 5

Change = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Corruption:
    """A change of images.

    Attributes:
        change: takes images (N, H, W, C) of values from 0 to 1, the amount, and a generator; returns images of any values.
        large: the amount at each severity, from 1 to 5.
        small: the same for images of less than 64 pixels.
    """

    change: Change
    large: tuple[float, ...]
    small: tuple[float, ...]

    def __call__(self, images: np.ndarray, severity: int, generator: np.random.Generator) -> np.ndarray:
        """Returns images (N, H, W, C) of values from 0 to 1, changed at a severity from 1 to 5."""
        amounts = self.small if min(images.shape[1:3]) < SMALL else self.large
        return self.change(images, amounts[severity - 1], generator).clip(0, 1)


def _gaussian_noise(images: np.ndarray, amount: float, generator: np.random.Generator) -> np.ndarray:
    return images + generator.normal(scale=amount, size=images.shape)


def _gaussian_blur(images: np.ndarray, amount: float, generator: np.random.Generator) -> np.ndarray:
    return gaussian_filter(images, (0, amount, amount, 0), mode="nearest")


def _brightness(images: np.ndarray, amount: float, generator: np.random.Generator) -> np.ndarray:
    """Raises the value of each pixel in the sense of HSV; its hue and saturation stay."""
    value = images.max(-1, keepdims=True)
    raised = (value + amount).clip(0, 1)
    return np.where(value > 0, images * raised / np.maximum(value, np.finfo(images.dtype).tiny), raised)


def _contrast(images: np.ndarray, amount: float, generator: np.random.Generator) -> np.ndarray:
    mean = images.mean((1, 2), keepdims=True)
    return (images - mean) * amount + mean


def _jpeg(images: np.ndarray, amount: float, generator: np.random.Generator) -> np.ndarray:
    """Writes each image as JPEG of quality `amount`, from 1 to 95, and reads it back."""
    found = []
    for pixels in (images * 255).round().astype(np.uint8):
        stored = io.BytesIO()
        Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(stored, "JPEG", quality=int(amount))
        found.append(np.asarray(Image.open(stored, formats=("JPEG",)), images.dtype).reshape(pixels.shape) / 255)
    return np.stack(found)


CORRUPTIONS: Mapping[str, Corruption] = {
    "gaussian_noise": Corruption(_gaussian_noise, (0.08, 0.12, 0.18, 0.26, 0.38), (0.04, 0.06, 0.08, 0.09, 0.10)),
    "gaussian_blur": Corruption(_gaussian_blur, (1, 2, 3, 4, 6), (0.4, 0.6, 0.7, 0.8, 1)),
    "brightness": Corruption(_brightness, (0.1, 0.2, 0.3, 0.4, 0.5), (0.05, 0.1, 0.15, 0.2, 0.3)),
    "contrast": Corruption(_contrast, (0.4, 0.3, 0.2, 0.1, 0.05), (0.75, 0.5, 0.4, 0.3, 0.15)),
    "jpeg_compression": Corruption(_jpeg, (25, 18, 15, 10, 7), (80, 65, 58, 50, 40)),
}
"""The changes of images, by their names in the paper."""
