"""Trained networks from Keras 3. `layers/` holds the form of each layer, in groups of one file each."""

from penjing.importing.keras.door import from_keras, read_keras

__all__ = ["from_keras", "read_keras"]
