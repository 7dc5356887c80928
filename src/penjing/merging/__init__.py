"""Merging: one convolution in the place of several, fitted to what they do on data. The network gets shorter."""

from penjing.merging.runs import Run, runs

__all__ = ["Run", "runs"]
