"""`penjing.quantize`: quantisation after a training or in its course, under a budget and with a bound on the metric's fall."""

import inspect
import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from penjing.budget import LIMITED, Budget, Drop, parse_drop
from penjing.capabilities import DEFAULT, Capabilities, find
from penjing.checks import (
    COUNT,
    EPOCHS,
    FUNCTION,
    PATH,
    PROGRESS,
    RATE,
    TEXT,
    a,
    checked,
    either,
    optional,
    several,
)
from penjing.data import Data
from penjing.distillation.teachers import TAUGHT_BY, TaughtBy
from penjing.errors import PenjingError, unknown_name
from penjing.evidence.memory import remembering
from penjing.graph import Graph
from penjing.planning import Deployment, Held, Problem, find_solver
from penjing.quantization import (
    FLOAT,
    QuantizationSettings,
    QuantizedTraining,
    check_integers,
    grid_of,
    quantize_with,
    weights_by_place,
)
from penjing.quantization.doors import RULES
from penjing.targets import find_target, lower, targets
from penjing.techniques import Scope
from penjing.techniques import find as find_technique
from penjing.training import recover
from penjing.verbs._executed import check_executed_in_integers
from penjing.verbs._metric import least, metric_of


@checked(
    **{**RULES, "weights": either(TEXT, several(TEXT, "names of grids"))},
    budget=optional(a(Budget, "a penjing.Budget(size=…) or (latency=…)")),
    epochs=optional(EPOCHS),
    method=TEXT,
    stages=several(COUNT, "numbers of bits"),
    teacher=TAUGHT_BY,
    lr=RATE,
    checkpoint=optional(PATH),
    training=optional(a(Mapping, "a mapping of arguments of recover")),
    progress=PROGRESS,
    log=optional(FUNCTION),
)
def quantize(
    graph: Graph,
    data: Any = None,
    *,
    weights: str | Sequence[str] = "int8",
    activations: str | None = "auto",
    observer: str = "minmax",
    grain: str = "auto",
    rounding: str = "nearest",
    corrections: str | Sequence[str] = "auto",
    per_layer: Mapping[str, str] | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    target: Capabilities | str = DEFAULT,
    placement: str = "fastest",
    in_float: Sequence[str] = (),
    simulate: bool = False,
    seed: int = 0,
    budget: Budget | None = None,
    drop: float | str | None = None,
    epochs: int | None = None,
    method: str = "lsq",
    stages: Sequence[int] = (),
    teacher: TaughtBy = None,
    lr: float | None = None,
    checkpoint: Path | str | None = None,
    training: Mapping[str, Any] | None = None,
    progress: bool | Literal["always"] = True,
    log: Callable[[str], None] | None = None,
) -> Graph:
    """Returns a graph that rounds weights and activations to few bits; `graph` stays as it was.

    By default this takes seconds and trains nothing; `penjing.quantization.quantize` says how. With several grids in
    `weights`, each layer gets one of them. With `drop`, layers go back to more bits until the metric holds. With `epochs`,
    the graph is trained with its roundings in place.

    Args:
        graph: a float graph.
        data: a `Data` with a calibration part, or an iterable of batches. Not needed for weights alone. `drop` needs
            `data.validation`, `epochs` needs `data.train` or a teacher.
        weights: the weights' grid, a name in `penjing list grids` with its number: "int8", "int4", "power_of_two:8",
            "codebook:16", "ternary". Of several names, ("int4", "int8", "float32"), each layer gets one, so that the
            outputs have the least noise within the budget; the noise of each grid is measured, see `sensitivity`.
        activations: the activations' grid; "auto" takes what the target prefers; None rounds weights only.
        observer: how the activations' ranges are found, a name in `penjing list observers`.
        grain: which weights share a scale: "tensor", "channel", "group:SIZE"; "auto" is the grid's own.
        rounding: how weights are rounded to an integer grid, a name in `penjing list roundings`.
        corrections: what is corrected before and after rounding, names in `penjing list corrections`; "auto" corrects each
            channel's mean and variance on the first samples; () corrects nothing.
        per_layer: grids of single layers, by pattern of their module path, "float32" for floating point; the first pattern
            that fits wins.
        include: patterns of module paths; all other layers compute in floating point.
        exclude: patterns of module paths that compute in floating point.
        target: the runtime that the graph is quantised for, a name in `penjing targets`: values are rounded where it
            computes in integers. For a target that computes nothing in integers, such as "torch", only weights can be
            rounded (activations=None), unless `simulate` is set. A `penjing.capabilities.Capabilities` describes another
            target.
        placement: "integer" leaves only excluded layers in floating point; to check this, the model that the target
            executes is made and examined. "fastest" also leaves `in_float` so, and layers without an integer kernel on the
            target.
        in_float: patterns of layers that were measured to be faster in floating point.
        simulate: allow grids and grains that the target doesn't run; values are rounded to the grid all the same.
        seed: seed of roundings that draw random numbers, and of the training.
        budget: limits that the choice among several `weights` keeps: size of the file and latency, measured on the
            target. With `simulate`, or a target of your own, nothing is measured and size counts the weights' bits. Its
            `drop` is the same as `drop`.
        drop: how far the metric on `data.validation` may fall: 0.01, or "2%" of it, see `Budget`. If it falls further, layers go
            back to 8 bits and to floating point, first those that remove the most noise for their cost; the plan lists
            them. Without labels, the agreement with `graph` takes the metric's place.
        epochs: passes over the training data with roundings in place.
        method: how such a training learns the ranges, a name in `penjing list methods`.
        stages: bits of the integer weights in earlier stages of such a training, as (8, 4) before "int2".
        teacher: a model to learn from in the training, often the float graph itself; see `recover`.
        lr: the peak learning rate of the training; see `recover`.
        checkpoint: a file in which the training keeps its state; see `recover`.
        training: more arguments of `recover`, by name.
        progress: a progress bar of the training when stderr is a terminal; "always" anywhere, False never.
        log: called with lines that a user may want to read; by default the logger "penjing.quantize".

    Raises:
        PenjingError: unknown names, patterns that match nothing, data that is missing or isn't finite, a grid that the
            target can't run, a budget that can't be kept, arguments that don't go together.
        Interrupted: Ctrl-C while training.

    Example:
        >>> small = pj.quantize(graph, data)  # doctest: +SKIP
        >>> tiny = pj.quantize(graph, data, weights=("int4", "int8"), budget=pj.Budget(size="0.2x"))  # doctest: +SKIP
        >>> safe = pj.quantize(graph, data, drop=0.005)  # doctest: +SKIP
    """
    able = find(target)
    if activations is not None and not simulate:
        check_integers(able)
    learning = _Learning(epochs, method, stages, teacher, lr, checkpoint, training)
    allowed = _drop(budget, drop)
    _check_together(weights, budget, allowed, rounding, corrections, learning)
    told = log or logging.getLogger("penjing.quantize").info
    grids = (weights,) if isinstance(weights, str) else tuple(weights)
    judged = None if allowed is None else _judged(data, allowed)
    if allowed is not None or len(grids) > 1:  # the same layers are calibrated several times
        data = remembering(data)
    usual = next((name for name in grids if name != FLOAT), FLOAT)
    settings = QuantizationSettings(
        usual, activations, observer, grain, rounding, corrections, per_layer or {}, exclude, able, placement, in_float,
        simulate, seed, include,
    )  # fmt: skip

    small, trained = None, settings
    if not isinstance(weights, str):
        small = _solved("least_noise", graph, data, settings, grids, told, budget=budget)
        trained = replace(settings, per_layer={**settings.per_layer, **_inner_first(_chosen(graph, small))})
    if epochs is not None:
        small = _train_quantized(graph, data, trained, learning, progress, log)
    elif small is None:
        small = quantize_with(graph, data, settings)
    if allowed is not None and judged is not None:
        held = Held(lambda made: metric_of(made, graph, judged), least(graph, judged, allowed, told))
        wider = (*dict.fromkeys([*grids, *able.numbers.wider, FLOAT]),)
        small = _solved("hold_metric", graph, data, settings, wider, told, held=held, start=small)
    if placement == "integer" and not simulate:
        check_executed_in_integers(small, target, exclude)
    return small


def _solved(
    solver: str,
    graph: Graph,
    data: Any,
    settings: QuantizationSettings,
    grids: Sequence[str],
    told: Callable[[str], None],
    *,
    budget: Budget | None = None,
    held: Held | None = None,
    start: Graph | None = None,
) -> Graph:
    """Returns the graph of a solver that chooses among several grids for each layer."""
    own = {
        one.name: getattr(settings, one.name)
        for one in fields(QuantizationSettings)
        if one.name not in ("weights", "exclude")
    }
    technique = find_technique("quantize", {"weights": grids, **own})
    able = find(settings.target)
    with tempfile.TemporaryDirectory() as folder:
        original = None
        if not settings.simulate and able.name in targets:  # sizes are counted for a target of the user's own
            original = lower(graph, able.name, Path(folder) / f"original{find_target(able.name).suffix}")
        problem = Problem(
            graph, data, original, budget or Budget(), Deployment(able.name), {"quantize": technique},
            Scope(exclude=tuple(settings.exclude)), Path(folder), say=told, held=held, start=start, record=able,
        )  # fmt: skip
        made = find_solver(solver)(problem).graph
    assert made is not None, "these solvers make the graph"
    return made


def _chosen(graph: Graph, small: Graph) -> dict[str, str]:
    """Returns the grid that each layer of a graph has in its quantised form, as `per_layer` names it."""
    steps = {step.place.path: grid_of(step) for step in small.plan.of("quantize") if step.place.kind == "weight"}
    return {path: steps.get(path, FLOAT) for path in weights_by_place(graph)}


def _inner_first(grids: Mapping[str, str]) -> dict[str, str]:
    """Sorts module paths that serve as patterns: since the first that fits wins, inner modules come before outer ones."""
    return dict(sorted(grids.items(), key=lambda item: -item[0].count(".")))


def _drop(budget: Budget | None, drop: float | str | None) -> Drop | None:
    """Returns the allowed fall of the metric, from `drop` or from the budget.

    Raises:
        PenjingError: both give one.
    """
    if budget is None or budget.drop is None:
        return parse_drop(Budget(drop=drop).drop)
    if drop is not None:
        raise PenjingError(f"drop={drop} and budget=penjing.Budget(drop={budget.drop}) say the same thing: give one.")
    return parse_drop(budget.drop)


@dataclass(frozen=True)
class _Learning:
    """How a quantised graph is trained; `quantize` documents the attributes."""

    epochs: int | None
    method: str = "lsq"
    stages: Sequence[int] = ()
    teacher: TaughtBy = None
    lr: float | None = None
    checkpoint: Path | str | None = None
    training: Mapping[str, Any] | None = None

    @property
    def asked(self) -> list[str]:
        """The names of the attributes, other than the epochs, that the user set."""
        return [
            one.name for one in fields(self) if one.default is not MISSING and getattr(self, one.name) != one.default
        ]


def _check_together(
    weights: str | Sequence[str],
    budget: Budget | None,
    drop: Drop | None,
    rounding: str,
    corrections: str | Sequence[str],
    learning: _Learning,
) -> None:
    """Makes sure that the arguments go together.

    Raises:
        PenjingError: they don't; the error names one that is in the way.
    """
    if budget is not None and (
        other := [name for name in LIMITED if name not in ("size", "latency") and getattr(budget, name) is not None]
    ):
        raise PenjingError(f"quantize keeps limits on size, latency and drop; compress keeps {other[0]}= too.")
    limited = budget is not None and (budget.size is not None or budget.latency is not None)
    if limited and isinstance(weights, str):
        raise PenjingError(
            f"A budget on size or latency needs grids to choose from, as weights=('int4', 'int8'), not '{weights}'."
        )
    if not limited and not isinstance(weights, str):
        raise PenjingError(
            "weights=(…) chooses a grid for each layer under a budget: pass budget=penjing.Budget(size=…) or (latency=…)."
        )
    if not isinstance(weights, str) and len(set(weights)) < 2:
        raise PenjingError(f"weights={tuple(weights)!r} leaves no choice; give a name, or several to choose from.")
    if learning.epochs is None:
        if learning.asked:
            raise PenjingError(f"{learning.asked[0]}= is for a training: pass epochs=…, the passes over data.train.")
        return
    if learning.epochs < 1:
        raise PenjingError(f"epochs={learning.epochs} is no training: pass the passes over data.train, at least 1.")
    if drop is not None:
        raise PenjingError(
            "drop= sends layers back after training; with epochs=… train longer, or name them in per_layer=."
        )
    if rounding != "nearest" or corrections not in ("auto", (), []):
        raise PenjingError("With epochs=… roundings and biases are trained: leave out rounding= and corrections=.")


def _judged(data: Any, drop: Drop) -> Data:
    """Returns the data, once they are checked to have a validation part to judge on.

    Raises:
        PenjingError: there is no validation part.
    """
    if not isinstance(data, Data) or data.validation is None:
        raise PenjingError(f"drop={drop} holds the metric: pass a penjing.Data with validation=, to measure it on.")
    return data


# Arguments of `recover` that `quantize` sets itself.
_SETTLED = (
    "graph", "data", "teacher", "epochs", "lr", "seed", "checkpoint", "progress", "log", "callbacks", "penalty",
    "penalty_weight",
)  # fmt: skip


def _train_quantized(
    graph: Graph,
    data: Any,
    settings: QuantizationSettings,
    learning: _Learning,
    progress: bool | Literal["always"],
    log: Callable[[str], None] | None,
) -> Graph:
    """Returns a graph that rounds weights and activations to few bits and was trained so; `graph` stays as it was.

    The ranges with which the training starts come from `data.calibration`; the training reads `data.train`.

    Raises:
        PenjingError: what `quantize` and `recover` raise.
        Interrupted: Ctrl-C while training.
    """
    if not isinstance(data, Data):
        raise PenjingError(f"{type(data).__name__} can't be trained on: with epochs=… pass a penjing.Data.")
    assert learning.epochs is not None
    more = [name for name in inspect.signature(recover).parameters if name not in _SETTLED]
    for name in learning.training or {}:
        if name not in more:
            raise unknown_name("argument in training=", str(name), more)
    choices = {name: value for name, value in settings.arguments().items() if name not in ("rounding", "corrections")}
    quantized = QuantizedTraining(graph, data, method=learning.method, stages=learning.stages, **choices)
    recover(
        quantized.graph, data, teacher=learning.teacher, epochs=learning.epochs, lr=learning.lr, seed=settings.seed,
        checkpoint=learning.checkpoint, progress=progress, log=log, callbacks=[quantized], penalty=quantized.penalty,
        **(learning.training or {}),
    )  # fmt: skip
    return quantized.finish()
