"""`penjing.early_exit`: a network that answers easy inputs before its end."""

import inspect
import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from torch import nn

from penjing.adaptive import SandwichTask
from penjing.adaptive.exits import Exits, Point, told
from penjing.adaptive.staged import stage_latencies
from penjing.adaptive.thresholds import answers, cheapest, curve, metric_at
from penjing.budget import Budget, parse_drop
from penjing.checks import (
    EPOCHS,
    FLAG,
    FUNCTION,
    PATH,
    PROGRESS,
    RATE,
    SEED,
    TEXT,
    THREADS,
    a,
    checked,
    either,
    number,
    optional,
    several,
)
from penjing.data import Data
from penjing.errors import PenjingError, unknown_name
from penjing.graph import Graph
from penjing.graph.doors import GIVEN
from penjing.training import recover
from penjing.training.speed import is_quantized
from penjing.verbs._metric import metric_of

HEADS_LR = 0.005  # of AdamW: heads are linear, begin at zero and learn in few steps

# Arguments of `recover` that `early_exit` sets itself, or that speak of a teacher.
_SETTLED = (
    "graph", "data", "teacher", "epochs", "lr", "seed", "checkpoint", "progress", "log", "penalty", "penalty_weight",
    "signal", "temperature", "distill_weight", "balance", "schedule", "taps",
)  # fmt: skip


@checked(
    graph=GIVEN,
    data=a(Data, "a penjing.Data"),
    at=either(TEXT, several(TEXT, "names of modules or nodes")),
    threshold=optional(number(above=0, most=1)),
    epochs=EPOCHS,
    train_network=FLAG,
    target=TEXT,
    threads=THREADS,
    seed=SEED,
    lr=RATE,
    checkpoint=optional(PATH),
    training=optional(a(Mapping, "a mapping of arguments of recover")),
    progress=PROGRESS,
    log=optional(FUNCTION),
)
def early_exit(
    graph: Graph,
    *,
    data: Data,
    at: str | Sequence[str] = "auto",
    drop: float | str | None = 0.005,
    threshold: float | None = None,
    epochs: int = 5,
    train_network: bool = False,
    target: str = "onnxruntime",
    threads: int = 1,
    seed: int = 0,
    lr: float | None = None,
    checkpoint: Path | str | None = None,
    training: Mapping[str, Any] | None = None,
    progress: bool | Literal["always"] = True,
    log: Callable[[str], None] | None = None,
) -> Exits:
    """Returns a network with exits, by which inputs leave of which it is sure early; `graph` stays as it was.

    Unless `train_network` is set, the network itself isn't trained and answers as before. A small head stands at each exit and
    learns the network's own outputs. The threshold of its confidence is chosen on the validation data, with the stages'
    latencies measured on the target.

    Args:
        graph: a captured classifier, in floating point or quantised, or what `compress` returned.
        data: `data.train` is used for the heads, `data.validation` for the threshold, both with labels.
        at: names of modules or nodes behind which an exit stands; "auto" takes the ends of stages, the last but one block of
            layers of each resolution.
        drop: how far the metric may fall by early answers: 0.005 is half a point, "2%" a share; see `Budget`.
        threshold: the confidence from which on a sample leaves; None takes the one with the least mean latency under `drop`.
        epochs: passes over the data with which the heads are trained.
        train_network: whether the network learns from the labels meanwhile and takes part in what its exits learn, as in the
            second paper; more samples then leave early. `drop` counts from the network as it was given.
        target: the runtime on which the stages are measured.
        threads: threads within an op.
        seed: seed of the training.
        lr: the peak learning rate; None looks for one by trial, see `recover`. By default 0.005 for heads alone, and by trial
            for a network.
        checkpoint: a file in which the training keeps its state, to resume from after any stop.
        training: further arguments of `recover`; heads alone are trained with "optimizer": "adamw" where this names none.
        progress: a progress bar of the training when stderr is a terminal; "always" anywhere, False never.
        log: called with lines that a user may want to read; by default the loggers "penjing.early_exit" and "penjing.train".

    Returns:
        The network with its exits, the threshold, and the curve of all thresholds. Where no threshold keeps the metric,
        `threshold` is None, a line of the log says so, and no sample leaves early.

    Raises:
        PenjingError: a name is unknown; an exit stands behind the last layer; no sample reaches the threshold that was given; the
            network doesn't give logits; the data has no labels or lacks a part; or what `recover` and `penjing.lower` raise.
        Interrupted: Ctrl-C while training.

    Example:
        >>> exits = pj.early_exit(graph, data=data, drop=0.005)  # doctest: +SKIP
        >>> logits, left_at = exits(images)  # doctest: +SKIP

    References:
        Teerapittayanon et al. 2016, BranchyNet: Fast Inference via Early Exiting from Deep Neural Networks, ICPR,
        arXiv:1709.01686; Kaya et al. 2019, Shallow-Deep Networks: Understanding and Mitigating Network Overthinking, ICML,
        arXiv:1810.07052.
    """
    more = {**({} if train_network else {"optimizer": "adamw"}), **(training or {})}
    _check(graph, data, more, train_network)
    allowed = parse_drop(Budget(drop=drop).drop)
    if allowed is None:
        raise PenjingError("drop=None leaves the metric without a bound: give the largest allowed fall, such as 0.005.")
    told_to = log or logging.getLogger("penjing.early_exit").info
    exits = Exits.of(graph, at)
    heads = exits.heads
    learning = {name: one.requires_grad for name, one in exits.graph.named_parameters()}
    for name, parameter in exits.graph.named_parameters():
        parameter.requires_grad_(name in heads or train_network)
    recover(
        exits.graph if train_network else _Frozen(exits.graph), replace(data, task=SandwichTask(data.task)), epochs=epochs,
        lr=lr or (None if train_network else HEADS_LR), seed=seed, checkpoint=checkpoint, progress=progress, log=log, **more,
    )  # fmt: skip
    exits.graph.eval()
    for name, parameter in exits.graph.named_parameters():
        parameter.requires_grad_(learning[name])
    found = answers(exits.graph, data)
    whole, _ = metric_at(found, data, None)
    with tempfile.TemporaryDirectory() as folder:
        until = stage_latencies(exits, target, Path(folder), threads)
    points = curve(found, data, until)
    before = metric_of(graph, graph, data) if train_network else whole
    chosen = cheapest(points, before - allowed.of(before))
    if threshold is not None:
        chosen = _given(threshold, found, data, until, points)
    if chosen is None:
        told_to(
            f"No sample leaves early: no threshold keeps the metric {before:.4f} within drop={drop}. Tried: {told(points)}."
        )
    made = replace(
        exits, threshold=None if chosen is None else chosen.threshold, metric=whole,
        curve=tuple(sorted({*points, *([chosen] if chosen else [])}, key=lambda point: point.threshold)),
    )  # fmt: skip
    told_to(f"{made}; the whole network: metric {whole:.4f}, {until[-1]:.3g} ms.")
    return made


class _Frozen(nn.Module):
    """A network that stays in eval mode while its heads are trained."""

    takes_mapping = True

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.graph(*args, **kwargs)

    def train(self, mode: bool = True) -> "_Frozen":
        super().train(mode)
        self.graph.eval()
        return self


def _given(threshold: float, found: Any, data: Data, until: Sequence[float], points: Sequence[Point]) -> Point:
    """Returns what the user's threshold does.

    Raises:
        PenjingError: no sample reaches it.
    """
    metric, shares = metric_at(found, data, threshold)
    if shares[-1] == 1:
        raise PenjingError(
            f"threshold={threshold:g}: at no exit is the network so sure of any validation sample. Tried: {told(points)}."
        )
    return Point(threshold, metric, sum(share * time for share, time in zip(shares, until, strict=True)), shares)


def _check(graph: Graph, data: Data, training: Mapping[str, Any], train_network: bool) -> None:
    """Makes sure that the data has all that is needed, and that the arguments are `recover`'s.

    Raises:
        PenjingError: something is missing, or unknown.
    """
    if train_network and is_quantized(graph):
        raise PenjingError(
            "The graph is quantised: train the float network with its exits, then quantise what exits.whole() returns, and give "
            "that its exits."
        )
    if not data.task.labelled:
        raise PenjingError("The data has no labels, by which early answers are judged: give labelled data.")
    if data.validation is None:
        raise PenjingError("The threshold is chosen on data.validation, which is None: give a validation part.")
    more = [name for name in inspect.signature(recover).parameters if name not in _SETTLED]
    for name in training:
        if name not in more:
            raise unknown_name("argument in training=", str(name), more)
