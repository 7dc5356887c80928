"""The teacher "data_free": it makes the inputs that it teaches by, where no data are left."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from penjing.checks import COUNT, FUNCTION, SEED, checked, number, optional, several
from penjing.data import Data
from penjing.distillation.pairs import wide
from penjing.distillation.signals import suited
from penjing.distillation.teachers._registry import frozen, teachers
from penjing.errors import PenjingError
from penjing.graph import Graph
from penjing.graph.doors import TRAINED
from penjing.graph.ops import aten
from penjing.tasks import Unlabelled, first_tensor

JITTER = 2  # pixels by which images are moved at each step, as in the authors' code for images of 32 pixels
BETAS = (0.5, 0.9)  # of Adam, as in the authors' code: a short memory of gradients that change with each move


@dataclass(frozen=True)
class Norm:
    """What went into a batch norm, and the statistics of the training data that the norm holds.

    Attributes:
        values: `(N, channels, ...)`.
        mean: the running mean, `(channels,)`.
        variance: the running variance, `(channels,)`.
    """

    values: Tensor
    mean: Tensor
    variance: Tensor


@teachers.register(
    source="Yin et al., Dreaming to Distill: Data-free Knowledge Transfer via DeepInversion, CVPR 2020, arXiv:1912.08795",
    name="data_free",
    gives="data",
)
@checked(
    network=TRAINED,
    shape=optional(several(COUNT, "sizes of an input without the axis of samples, such as (3, 32, 32)")),
    samples=COUNT,
    batch_size=COUNT,
    steps=COUNT,
    lr=number(above=0),
    norm_weight=number(0),
    variation_weight=number(0),
    magnitude_weight=number(0),
    seed=SEED,
    log=optional(FUNCTION),
)
def data_free(
    network: nn.Module,
    shape: Sequence[int] | None = None,
    *,
    samples: int = 1024,
    batch_size: int = 256,
    steps: int = 2000,
    lr: float = 0.1,
    norm_weight: float = 10.0,
    variation_weight: float = 2.5e-5,
    magnitude_weight: float = 3e-8,
    seed: int = 0,
    log: Callable[[str], None] | None = None,
) -> Data:
    """Makes inputs by which a network can teach without data: those whose statistics its batch norms know.

    Noise is changed by gradient descent, the network staying as it is, until the loss of a batch x with wished classes y is low:

        cross-entropy(network(x), y) + norm_weight · Σ over batch norms of (‖mean − running mean‖ + ‖variance − running variance‖)
            + variation_weight · the norms of differences between neighbouring pixels, in four directions
            + magnitude_weight · ‖x‖

    All norms are over the whole batch, as in the authors' code. Images are moved by some pixels at each step, so that no pixel
    counts by its place. Where outputs are no classes, the first term is left out. A step costs about what one of training does.

    Args:
        network: the teacher; it must have batch norms with running statistics, and one floating-point input.
        shape: of its input without the axis of samples; a captured graph knows it.
        samples: how many to make.
        batch_size: how many are made together; statistics are those of such a batch, so that small ones are poor.
        steps: steps of Adam for each batch.
        lr: their learning rate.
        norm_weight: see above.
        variation_weight: see above.
        magnitude_weight: see above.
        seed: seed of the noise, of the classes' order and of the moves.
        log: called with a line for each batch; by default the logger "penjing.distillation".

    Returns:
        Unlabelled data whose `train` and `calibration` are these batches: `recover(student, data, teacher=network)`.

    Raises:
        PenjingError: the network has no batch norms with statistics, several inputs, or a shape that nobody named.
    """
    teacher, say = frozen(network), log or logging.getLogger("penjing.distillation").info
    device = next((tensor.device for tensor in (*teacher.parameters(), *teacher.buffers())), torch.device("cpu"))
    size = _input_shape(teacher, shape)
    generator = torch.Generator().manual_seed(seed)
    batches = []
    with _observed(teacher) as run:
        for count in [min(batch_size, samples - begun) for begun in range(0, samples, batch_size)]:
            x = torch.randn(count, *size, generator=generator).to(device).requires_grad_()
            descent = torch.optim.Adam([x], lr, betas=BETAS)
            classes = _wished(run, x, generator)
            for _ in range(steps):
                outputs, norms = run(_moved(x, generator))
                loss = norm_weight * statistics_apart(norms) + magnitude_weight * x.norm()
                loss = loss + (variation_weight * variation(x) if x.ndim == 4 else 0)
                if classes is not None:
                    loss = loss + F.cross_entropy(wide(first_tensor(outputs)), classes)
                x.grad = torch.autograd.grad(loss, x)[0]
                descent.step()
            batches.append((x.detach().cpu(),))
            say(f"Made {sum(len(made) for (made,) in batches)} of {samples} inputs (loss {float(loss.detach()):.3f}).")
    return Data(train=batches, calibration=batches, validation=None, task=Unlabelled(), name="data_free")


def statistics_apart(norms: Sequence[Norm]) -> Tensor:
    """Returns Σ ‖mean − running mean‖₂ + ‖variance − running variance‖₂ over batch norms, with biased variances."""
    terms = []
    for norm in norms:
        values = wide(norm.values).transpose(0, 1).flatten(1)
        variance, mean = torch.var_mean(values, 1, correction=0)
        terms += [(mean - norm.mean).norm(), (variance - norm.variance).norm()]
    return torch.stack(terms).sum()


def variation(images: Tensor) -> Tensor:
    """Returns the sum of the norms of differences of images `(N, C, H, W)`, shifted in four directions."""
    right = images[:, :, :, :-1] - images[:, :, :, 1:]
    down = images[:, :, :-1, :] - images[:, :, 1:, :]
    falling = images[:, :, :-1, :-1] - images[:, :, 1:, 1:]
    rising = images[:, :, 1:, :-1] - images[:, :, :-1, 1:]
    return torch.stack([each.norm() for each in (right, down, falling, rising)]).sum()


Observed = Callable[[Tensor], tuple[Any, list[Norm]]]


@contextmanager
def _observed(network: nn.Module) -> Iterator[Observed]:
    """Yields what runs a network and tells what its batch norms were given.

    Raises:
        PenjingError: the network has none with running statistics.
    """
    found: list[Norm] = []
    handles = []
    if isinstance(network, Graph):
        yield _observed_graph(network)
        return

    def note(module: _BatchNorm, inputs: Any) -> None:
        assert module.running_mean is not None and module.running_var is not None
        found.append(Norm(inputs[0], module.running_mean, module.running_var))

    def run(x: Tensor) -> tuple[Any, list[Norm]]:
        found.clear()
        return network(x), list(found)

    for module in network.modules():
        if isinstance(module, _BatchNorm) and module.running_mean is not None:
            handles.append(module.register_forward_pre_hook(note))
    if not handles:
        raise _without_norms()
    try:
        yield run
    finally:
        for handle in handles:
            handle.remove()


def _observed_graph(graph: Graph) -> Observed:
    nodes = [
        node
        for node in graph.program.graph.nodes
        if node.target is aten.batch_norm.default and node.args[3] is not None and node.args[4] is not None
    ]
    if not nodes:
        raise _without_norms()
    statistics = [[graph.tensor(str(node.args[place].target)) for place in (3, 4)] for node in nodes]
    tapped = graph.with_outputs(dict.fromkeys(node.args[0].name for node in nodes))

    def run(x: Tensor) -> tuple[Any, list[Norm]]:
        outputs, taps = tapped(x)
        return outputs, [Norm(taps[node.args[0].name], *pair) for node, pair in zip(nodes, statistics, strict=True)]

    return run


def _without_norms() -> PenjingError:
    return PenjingError(
        "The network has no batch norms with running statistics, and nothing else tells what its training data were like: "
        "distil with data that are like them instead, even without labels."
    )


def _input_shape(network: nn.Module, shape: Sequence[int] | None) -> tuple[int, ...]:
    """Returns the shape of a network's one input without the axis of samples.

    Raises:
        PenjingError: it has several inputs, or one of whole numbers; or it is no graph and nobody named the shape.
    """
    if isinstance(network, Graph):
        inputs = network.example_inputs()
        if len(inputs) != 1 or not inputs[0].is_floating_point():
            raise PenjingError(
                f"Inputs can be made for a network with a single floating-point input, and this one has {len(inputs)} inputs "
                f"({', '.join(str(x.dtype) for x in inputs)}): wrap it in one that makes the others."
            )
        return tuple(shape) if shape is not None else tuple(inputs[0].shape[1:])
    if shape is None:
        raise PenjingError(
            "Name the shape of the network's input without the axis of samples, such as shape=(3, 32, 32)."
        )
    return tuple(shape)


def _wished(run: Observed, x: Tensor, generator: torch.Generator) -> Tensor | None:
    """Returns a class for each sample, each as often, in a random order; None where outputs are no classes."""
    with torch.no_grad():
        outputs = first_tensor(run(x)[0])
    if outputs.ndim != 2 or suited("auto", outputs) == "values":
        return None
    order = torch.randperm(len(x), generator=generator)
    return (order % outputs.shape[1]).to(x.device)


def _moved(x: Tensor, generator: torch.Generator) -> Tensor:
    """Returns images shifted round by a few pixels; other inputs as they are."""
    if x.ndim != 4:
        return x
    shifts = torch.randint(-JITTER, JITTER + 1, (2,), generator=generator).tolist()
    return torch.roll(x, shifts, dims=(2, 3))
