"""The table of methods of quantised training: how the ranges of the grids are found while a graph trains."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from penjing.registry import Entry, Registry


@dataclass(frozen=True)
class Method:
    """How the ranges of grids are found in the course of a training.

    Attributes:
        learns_weights: whether the scales of weights with fewer than 8 bits are learned; otherwise the grid's own rule
            computes them again and again.
        activations: "step" learns step sizes below 8 bits, and averages ranges otherwise; "clip" learns the bounds of
            activations without values below 0, and averages the ranges of others; "range" averages all ranges.
        decay: strength of the L2 regularisation of learned bounds.
    """

    learns_weights: bool
    activations: Literal["step", "clip", "range"]
    decay: float = 0.0


@dataclass(frozen=True, kw_only=True)
class MethodEntry(Entry[Callable[[], Method]]):
    """A registered method."""


methods = Registry("method", MethodEntry)


@methods.register(
    source="Bengio et al. 2013, Estimating or Propagating Gradients Through Stochastic Neurons, arXiv:1308.3432; Jacob et "
    "al. 2018, arXiv:1712.05877",
    needs={"data", "training"},
)
def ste() -> Method:
    """Straight-through gradients alone: weights' scales follow their grid's rule, activations' ranges are averaged.

    With "ternary" and "binary" weights this is the training of ternary weight networks (Li et al. 2016, arXiv:1605.04711)
    and of XNOR-Net's binary weights (Rastegari et al. 2016, arXiv:1603.05279): each step rounds the float weights again.
    """
    return Method(False, "range")


@methods.register(
    source="Esser et al. 2020, Learned Step Size Quantization, arXiv:1902.08153", needs={"data", "training"}
)
def lsq() -> Method:
    """Learned step sizes of weights and activations with fewer than 8 bits; with more bits, ranges are found as in `ste`.

    With 8 bits the step is so small beside the noise of its gradient that it diverges at the learning rates that few bits
    need (the paper uses a tenth of these), and clipping costs about as much as it gains.

    Step sizes start from the scales of quantisation without training, where the paper takes 2·E|x|/√Q_P. The scales of
    weights have the least squared error, and those of activations too with `observer="mse"`. Zero points stay. Ternary
    weights are integers from −1 to 1, whose threshold is half of the step. For binary weights the step is learned, and the
    sign is that of the float weight.
    """
    return Method(True, "step")


@methods.register(
    source="Choi et al. 2018, PACT: Parameterized Clipping Activation for Quantized Neural Networks, arXiv:1805.06085",
    needs={"data", "training"},
)
def pact() -> Method:
    """Learned clipping bounds of ReLU outputs, with an L2 penalty; weights and signed activations are handled as in `ste`."""
    return Method(False, "clip", decay=2e-4)
