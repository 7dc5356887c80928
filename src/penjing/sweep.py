"""Several budgets from one measuring: runs that begin with one another, side by side on one page."""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from penjing import report
from penjing.budget import LIMITED, Budget
from penjing.checks import FUNCTION, PATH, TEXT, a, checked, optional, several
from penjing.compress import Result, compress
from penjing.data import Data
from penjing.errors import PenjingError, unknown_name
from penjing.graph import Graph, capture
from penjing.graph.doors import TRAINED
from penjing.lines import Lasting
from penjing.report import Comparison
from penjing.run.lock import locked
from penjing.run.stages import FINISHED
from penjing.run.workspace import INNER, RECORD, writing

OWN = (
    "model",
    "example_inputs",
    "data",
    "budget",
    "out",
    "start_from",
    "say",
)  # arguments of `compress` that a sweep has too
NOT_FOR_SEVERAL = ("objective", "dry_run", "began")  # those that belong to a single run
SAFE = re.compile(r"[\w.%µ×+-]+")  # what a folder may be called on any system


@dataclass(frozen=True, repr=False)
class Sweep:
    """Finished runs under several limits.

    Attributes:
        results: the runs, in the order of the limits.
        comparison: the runs side by side; None where fewer than two are finished.
        out: the folder that holds one folder for each run, and `index.html`.
    """

    results: tuple[Result, ...]
    comparison: Comparison | None
    out: Path

    @property
    def met(self) -> bool:
        """Whether every run kept its budget."""
        return all(one.met for one in self.results)

    def __repr__(self) -> str:
        lines = [f"{one.out.name}: {one.headline}" for one in self.results]
        return "\n".join(["Sweep:", *(f"  {line}" for line in lines), f"  All of them: {self.out / 'index.html'}"])


@checked(
    model=optional(TRAINED),
    data=optional(a(Data, "a penjing.Data")),
    budgets=several(TEXT, "limits"),
    limit=TEXT,
    budget=optional(a(Budget, "a penjing.Budget")),
    out=PATH,
    start_from=optional(PATH),
    say=FUNCTION,
)
def sweep(
    model: nn.Module | None = None,
    example_inputs: Tensor | Sequence[Any] | Mapping[str, Any] | None = None,
    *,
    data: Data | None = None,
    budgets: Sequence[str],
    limit: str = "latency",
    budget: Budget | None = None,
    out: Path | str = "out",
    start_from: Path | str | None = None,
    say: Callable[[str], None] = print,
    **options: Any,
) -> Sweep:
    """Compresses a model under several limits on one cost, and shows accuracy over latency and size.

    Each run is a folder `out/LIMIT` as `compress` writes it, and begins with the run before: what the data told, measured kernels
    and candidates serve all of them. After a kill, the same call goes on; runs that are finished are only read.

    Args:
        model: a trained model, or a captured graph; by default that of `start_from`.
        example_inputs: inputs as the model is called; not needed for a graph.
        data: the data to calibrate, train and judge on; by default those of `start_from`.
        budgets: the limits, such as ["0.5x", "0.4x", "0.3x"], at least two.
        limit: what they limit: "latency", "size", or another limit of `Budget`.
        budget: further limits, which all runs keep.
        out: the folder for all runs.
        start_from: the folder of an earlier run, with which the first one begins.
        say: called with lines for the user.
        options: further arguments of `compress`, the same for all runs; `max_minutes` counts for each of them.

    Returns:
        The results. After Ctrl-C, those of the runs that are finished.

    Raises:
        PenjingError: bad input, before anything is measured; or a run fails.

    Example:
        >>> found = pj.sweep(model, example, data=data, budgets=["0.5x", "0.3x"], out="front")  # doctest: +SKIP
    """
    limited = limited_budgets(budgets, limit, budget or Budget())
    _check_options(options)
    out = Path(out)
    _check_folder(out)
    if isinstance(model, nn.Module) and not isinstance(model, Graph):
        if example_inputs is None:
            raise PenjingError("sweep needs example_inputs for an nn.Module, as the model is called.")
        model = capture(model, example_inputs)
    results: list[Result] = []
    with locked(out / INNER, out):
        if not (out / report.SWEEP).exists():
            report.note_runs(out, limit, [])  # makes the folder a sweep's
        for text, one in limited.items():
            say(Lasting(f"Run {len(results) + 1} of {len(limited)}: {limit} {text}."))
            place = out / text
            result = compress(model, data=data, budget=one, out=place, start_from=start_from, say=say, **options)
            assert isinstance(result, Result)  # it is no dry run
            if not (place / INNER / FINISHED).exists():
                say(Lasting(f"The run in {place} was cut short: the same call goes on with it."))
                break
            results.append(result)
            start_from = place
            with writing(out):
                report.note_runs(out, limit, [one.out.name for one in results])
        with writing(out):
            found = None if len(results) < 2 else report.write_front(out, limit, [one.out.name for one in results])
    return Sweep(tuple(results), found, out)


def limited_budgets(texts: Sequence[str], limit: str, others: Budget) -> dict[str, Budget]:
    """Returns the budget of each run by the limit's text, which its folder is called.

    Raises:
        PenjingError: there are fewer than two limits, one is given twice or can't be read, or there is no such limit.
    """
    if limit not in LIMITED:
        raise unknown_name("limit", limit, LIMITED)
    if getattr(others, limit) is not None:
        raise PenjingError(
            f"budgets={list(texts)} limit the {limit}, and so does budget={limit}=…: leave one of them out."
        )
    if len(texts) < 2:
        raise PenjingError(
            "A sweep needs two limits or more, such as budgets=['0.5x', '0.3x']; for one, call compress."
        )
    found: dict[str, Budget] = {}
    for text in (one.strip() for one in texts):
        if text in found:
            raise PenjingError(f"The limit '{text}' is given twice: name each once.")
        found[text] = replace(others, **{limit: text})
        if SAFE.fullmatch(text) is None:
            raise PenjingError(
                f"The limit '{text}' names the folder of its run: write it without spaces, such as '5ms'."
            )
    return found


def _check_options(options: Mapping[str, Any]) -> None:
    """Raises if an option isn't an argument of `compress` that several runs can share."""
    known = [name for name in inspect.signature(compress).parameters if name not in (*OWN, *NOT_FOR_SEVERAL)]
    for name in options:
        if name in NOT_FOR_SEVERAL:
            raise PenjingError(f"{name}=… belongs to a single run: leave it out of a sweep.")
        if name not in known:
            raise unknown_name("argument of sweep", name, known)


def _check_folder(out: Path) -> None:
    """Raises if a folder holds a single run, or something else than a sweep."""
    if out.exists() and not out.is_dir():
        raise PenjingError(f"{out} is a file; give a folder.")
    if (out / INNER / RECORD).exists():
        raise PenjingError(
            f"{out} holds a single run: name another folder for the sweep, and start_from={str(out)!r} (--from {out}) to begin "
            "with that run."
        )
    if out.is_dir() and not (out / report.SWEEP).is_file() and any(path.name != INNER for path in out.iterdir()):
        raise PenjingError(f"{out} is not empty and holds no sweep; give a new or empty folder.")
