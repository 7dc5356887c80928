"""What a small network lost against its original, and where: by class, by sample, by layer.

Two networks of equal accuracy may differ in a few classes and in rare samples, which pay for the compression (Hooker et
al., What Do Compressed Deep Neural Networks Forget?, 2019). Nothing here runs a network: `Witness` is shown what both
answered.
"""

from penjing.explanation._layers import LayerNoise, noise_of_layers
from penjing.explanation._records import Bin, Calibration, ChangedSample, ClassChange, Explanation
from penjing.explanation._robustness import Corrupted, Robustness, check_images, robustness
from penjing.explanation._shown import shown
from penjing.explanation._statistics import Estimate
from penjing.explanation._witness import Witness

__all__ = [
    "Bin", "Calibration", "ChangedSample", "ClassChange", "Corrupted", "Estimate", "Explanation", "LayerNoise",
    "Robustness", "Witness", "check_images", "noise_of_layers", "robustness", "shown",
]  # fmt: skip
