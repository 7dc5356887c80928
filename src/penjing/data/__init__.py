"""Data for training, calibrating and evaluating networks: `Data`, the built-in sets, and the user's own images."""

from penjing.data._cifar10 import cifar10
from penjing.data._data import Data, Split
from penjing.data._digits import digits
from penjing.data._image_folder import image_folder
from penjing.data._load import comes_from_code, is_there, load
from penjing.data._mnist import mnist
from penjing.data._preprocess import Preprocess

__all__ = [
    "Data", "Preprocess", "Split", "cifar10", "comes_from_code", "digits", "image_folder", "is_there", "load",
    "mnist",
]  # fmt: skip
