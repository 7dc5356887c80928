"""Corrections before and after rounding that need no training: one file per correction."""

from penjing.quantization.corrections._activation_correction import activation_correction
from penjing.quantization.corrections._batch_norm_statistics import batch_norm_statistics
from penjing.quantization.corrections._bias_correction import bias_correction
from penjing.quantization.corrections._cross_layer_equalization import cross_layer_equalization
from penjing.quantization.corrections._input_equalization import equalize_inputs, even_scales
from penjing.quantization.corrections._registry import AUTO, Correction, corrections, of_stage
from penjing.quantization.corrections._shrunk_statistics import SAMPLES, shrunk_statistics
from penjing.quantization.corrections._side_by_side import look_at_noise

__all__ = [
    "AUTO",
    "SAMPLES",
    "Correction",
    "activation_correction",
    "batch_norm_statistics",
    "bias_correction",
    "corrections",
    "cross_layer_equalization",
    "equalize_inputs",
    "even_scales",
    "look_at_noise",
    "of_stage",
    "shrunk_statistics",
]
