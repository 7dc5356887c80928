"""The table of methods: what is learned of the ranges while a quantised graph trains."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from penjing.registry import Entry, Registry


@dataclass(frozen=True)
class Method:
    """How ranges come about in the course of a training.

    Attributes:
        learns_weights: the scales of weights of fewer than 8 bits are parameters; else the grid's own rule lays them anew.
        activations: "step", learned step sizes below 8 bits, else averaged ranges; "clip", learned bounds of what has no
            values below 0 and averaged ranges of the rest; "range", averaged ranges.
        decay: strength of L2 regularisation on the learned bounds.
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
    """Straight-through gradients alone: weights' scales by their grid's rule, activations' ranges averaged while training.

    With "ternary" and "binary" weights this is the training of ternary weight networks (Li et al. 2016, arXiv:1605.04711)
    and of XNOR-Net's binary weights (Rastegari et al. 2016, arXiv:1603.05279): each step rounds the latent weights anew.
    """
    return Method(False, "range")


@methods.register(
    source="Esser et al. 2020, Learned Step Size Quantization, arXiv:1902.08153", needs={"data", "training"}
)
def lsq() -> Method:
    """Learned step sizes of weights and activations of fewer than 8 bits; those of more are found as in `ste`.

    With 8 bits the step is so small beside the noise of its gradient that it runs away at the learning rates that few bits
    need (the paper takes a tenth of them), and clipping costs about as much as it gains.
    They start from the scales that rounding after training takes, where the paper takes 2·E|x|/√Q_P: those of weights have
    the least squared error, and so have those of activations with `observer="mse"`. Zero points stay. Ternary weights are
    integers from −1 to 1, whose threshold is half of the step; of binary ones the step is learned and the sign is the
    latent weight's.
    """
    return Method(True, "step")


@methods.register(
    source="Choi et al. 2018, PACT: Parameterized Clipping Activation for Quantized Neural Networks, arXiv:1805.06085",
    needs={"data", "training"},
)
def pact() -> Method:
    """Learned clipping bounds of ReLU outputs, with an L2 penalty; weights, and activations with a sign, as in `ste`."""
    return Method(False, "clip", decay=2e-4)
