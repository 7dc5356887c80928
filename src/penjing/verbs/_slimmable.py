"""`penjing.slimmable`: one network of several widths, trained by the sandwich rule."""

import copy
import inspect
import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from penjing.adaptive import Sandwich, SandwichTask, Slimmable
from penjing.checks import EPOCHS, FUNCTION, PATH, PROGRESS, RATE, a, checked, number, optional, several
from penjing.data import Data
from penjing.errors import PenjingError, unknown_name
from penjing.graph import Graph, remove
from penjing.graph.doors import GIVEN
from penjing.pruning import PruningSettings
from penjing.pruning.allocations import Rounding
from penjing.pruning.doors import RULES
from penjing.pruning.ranking import counts_of, ranking
from penjing.training import recover
from penjing.training.speed import is_quantized

_PRUNING = {name: rule for name, rule in RULES.items() if name not in ("granularity", "allocation", "data", "graph")}
# Arguments of `recover` that `slimmable` sets itself, or that speak of one graph.
_SETTLED = (
    "graph", "data", "teacher", "epochs", "lr", "seed", "checkpoint", "progress", "log", "penalty", "penalty_weight",
    "signal", "temperature", "distill_weight", "balance", "schedule", "taps",
)  # fmt: skip


@checked(
    **_PRUNING,
    graph=GIVEN,
    widths=several(number(above=0, most=1), "shares of the channels, above 0 and at most 1, such as [0.25, 0.5, 1.0]"),
    data=a(Data, "a penjing.Data"),
    epochs=EPOCHS,
    lr=RATE,
    checkpoint=optional(PATH),
    training=optional(a(Mapping, "a mapping of arguments of recover")),
    progress=PROGRESS,
    log=optional(FUNCTION),
)
def slimmable(
    graph: Graph,
    widths: Sequence[float],
    *,
    data: Data,
    epochs: int = 5,
    criterion: str = "l2",
    round_to: Rounding = None,
    min_channels: int = 1,
    units: str = "auto",
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    batches: int = 16,
    seed: int = 0,
    lr: float | None = None,
    checkpoint: Path | str | None = None,
    training: Mapping[str, Any] | None = None,
    progress: bool | Literal["always"] = True,
    log: Callable[[str], None] | None = None,
) -> Slimmable:
    """Returns one network of several widths that share their weights; `graph` stays as it was.

    The channels of each group are put in order by the criterion, once, and each width keeps the first of them. In each step
    the widest learns from the labels, and the narrower ones learn the widest's outputs.

    Args:
        graph: a captured graph in floating point, or what `compress` returned; trained, or not.
        widths: shares of the channels, such as [0.25, 0.5, 1.0].
        data: `data.train` is used, with labels.
        epochs: passes over the data; 0 trains nothing.
        criterion: the measure of how much a channel matters, a name in `penjing list criteria`.
        round_to: keep multiples of this many channels; see `prune`.
        min_channels: how many channels each group keeps at least.
        units: what a unit of attention is; see `channels`.
        include: patterns of module paths; if given, only channels of matching modules differ between widths.
        exclude: patterns of module paths whose channels all stay at every width.
        batches: how many batches of data the criterion looks at.
        seed: seed of the criterion and of the training.
        lr: the peak learning rate; see `recover`.
        checkpoint: a file in which the training keeps its state, to resume from after any stop.
        training: further arguments of `recover`, such as {"weight_decay": 5e-4, "augment": "mixup:0.2"}. "keep" and "stop_at"
            judge the widest width.
        progress: a progress bar of the training when stderr is a terminal; "always" anywhere, False never.
        log: called with lines that a user may want to read; by default the loggers "penjing.slimmable" and "penjing.train".

    Returns:
        The network, at its widest width.

    Raises:
        PenjingError: a width above 1, one that keeps nothing, or two that are the same; a graph that is quantised, has masks, or
            has no channels to remove; data without labels; or what `recover` raises.
        Interrupted: Ctrl-C while training.

    Example:
        >>> slim = pj.slimmable(graph, [0.25, 0.5, 1.0], data=data, epochs=30)  # doctest: +SKIP
        >>> slim.width = 0  # doctest: +SKIP
        >>> artifacts = slim.lower("onnxruntime", "widths/")  # doctest: +SKIP

    References:
        Yu et al. 2019, Slimmable Neural Networks, ICLR, arXiv:1812.08928; Yu and Huang 2019, Universally Slimmable Networks and
        Improved Training Techniques, ICCV, arXiv:1903.05134.
    """
    shares = _shares(widths)
    _check(graph, data, training or {})
    settings = PruningSettings(
        0.0, criterion, round_to=round_to, min_channels=min_channels, units=units, include=include, exclude=exclude,
        batches=batches, seed=seed,
    )  # fmt: skip
    graph = copy.deepcopy(graph)  # the channels that are ranked are those of this very graph
    ranked = ranking(graph, data, settings)
    if shares[-1] < 1:
        counts = counts_of(shares[-1], ranked.channels, round_to, min_channels)
        steps = ranked.steps(counts)
        graph = remove(graph, ranked.channels, ranked.without(counts))
        graph.plan += steps
        ranked = ranking(graph, data, settings)
    narrow = [counts_of(share / shares[-1], ranked.channels, round_to, min_channels) for share in shares[:-1]]
    counted = [*narrow, [group.units for group in ranked.channels.groups]]
    for place, (one, other) in enumerate(itertools.pairwise(counted)):
        if one == other:
            raise PenjingError(
                f"The widths {shares[place]:g} and {shares[place + 1]:g} keep the same channels of this network: leave one out."
            )
    model = Slimmable(graph, shares, ranked, narrow)
    told = log or logging.getLogger("penjing.slimmable").info
    told(
        ", ".join(f"width {share:g}: {model.graph(place).cost().macs:,} MACs" for place, share in enumerate(shares))
        + "."
    )
    given = replace(data, task=SandwichTask(data.task))
    recover(
        Sandwich(model), given, epochs=epochs, lr=lr, seed=seed, checkpoint=checkpoint, progress=progress,
        log=log, **(training or {}),
    )  # fmt: skip
    return model


def _shares(widths: Sequence[float]) -> list[float]:
    """Returns the widths from narrow to wide.

    Raises:
        PenjingError: there are fewer than two, or two are the same.
    """
    shares = sorted(widths)
    if len(shares) < 2:
        raise PenjingError(
            f"widths={list(widths)} leave nothing to switch: give two or more, such as [0.25, 0.5, 1.0]."
        )
    for one, other in itertools.pairwise(shares):
        if one == other:
            raise PenjingError(f"widths={list(widths)} hold {one:g} twice: leave one out.")
    return shares


def _check(graph: Graph, data: Data, training: Mapping[str, Any]) -> None:
    """Makes sure that the graph and the data can be trained at several widths, and that the arguments are `recover`'s.

    Raises:
        PenjingError: they can't, or aren't.
    """
    if is_quantized(graph):
        raise PenjingError(
            "The graph is quantised: make the float graph slimmable, and quantise its widths, pj.quantize(slim.graph(0), data)."
        )
    if graph.masks:
        raise PenjingError(
            "The graph has masks of single weights, which widths can't share: prune the widths, slim.graph(i)."
        )
    if not data.task.labelled:
        raise PenjingError("The data has no labels, and the widest width learns from them: give labelled data.")
    more = [name for name in inspect.signature(recover).parameters if name not in _SETTLED]
    for name in training:
        if name not in more:
            raise unknown_name("argument in training=", str(name), more)
