"""The forms of Keras' layers in PyTorch, in groups of one file each."""

from penjing.importing.keras.layers import activations, convolution, others, pooling, recurrent
from penjing.importing.keras.table import FORMS

__all__ = ["FORMS", "activations", "convolution", "others", "pooling", "recurrent"]
