"""One technique alone, or none, into a folder like that of a whole run: the files for the device, and what was measured.

Nothing is searched and nothing is trained. A run that is killed begins anew.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from penjing import report
from penjing.budget import Budget
from penjing.data import Data
from penjing.graph import Graph
from penjing.graph.places import Json
from penjing.planning import Deployment
from penjing.run import stages
from penjing.run.assemble_report import what_was_made
from penjing.run.baseline import Baseline, judge_original
from penjing.run.delivery import deliver
from penjing.run.lock import locked
from penjing.run.request import hash_of
from penjing.run.verification import OriginalAndCompressed, verify
from penjing.run.workspace import INNER, Workspace, check_space, look
from penjing.targets import find_target, lower
from penjing.tasks import Unlabelled
from penjing.techniques import find as find_technique

NO_DATA = Data(None, None, None, Unlabelled(), "no data")
COPIES = 4  # graphs and files that are written, all at most as large as the original
BESIDE = 5_000_000  # bytes of all other files together


@dataclass(frozen=True)
class OneTechnique:
    """What a user asked of one technique.

    Attributes:
        name: the technique's name; None where the compressed graph is there already.
        verb: carries the technique out, and returns the compressed graph.
        choices: what the technique was told, as plain JSON: a folder holds the result of one set of choices.
        data: the data to judge on; None where there are none.
        deployment: where and how the result runs.
        seed: seed of everything random.
        trained: whether the model is known to have trained weights.
        stored: how the result's file stores float weights; see `lower`.
    """

    name: str | None
    verb: Callable[[Graph], Graph]
    choices: Mapping[str, Json] = field(default_factory=dict)
    data: Data | None = None
    deployment: Deployment = field(default_factory=Deployment)
    seed: int = 0
    trained: bool = True
    stored: Literal["float32", "float16"] = "float32"

    def settings(self, graph: Graph) -> dict[str, Any]:
        """Returns, as plain JSON, all settings that affect the result."""
        return {
            "techniques": [self.name] if self.name is not None else [],
            "include": [],
            "exclude": [],
            **self.choices,
            **asdict(self.deployment),
            "seed": self.seed,
            "trained": self.trained,
            "model": hash_of(graph),
            "data": "none" if self.data is None else self.data.identity(),
        }


def carry_out_alone(
    graph: Graph, asked: OneTechnique, out: Path, say: Callable[[str], None], inputs: Mapping[str, str]
) -> dict[str, Any]:
    """Carries a technique out, writes the files for the device, and measures them side by side with the original's.

    Args:
        graph: the original.
        asked: what the user asked for.
        out: the folder for everything that is written; new, empty, or of the same choices.
        say: called with lines for the user.
        inputs: SHA-256 of the files that the model came from.

    Returns:
        The content of `report.json`.

    Raises:
        PenjingError: the technique can't be carried out, or the folder can't be written; nothing is written then.
    """
    settings, target = asked.settings(graph), find_target(asked.deployment.target)
    data = NO_DATA if asked.data is None else asked.data
    look(out, settings)
    check_space(out, COPIES * graph.cost().weight_bytes + BESIDE)
    with locked(out / INNER, out):
        began = time.monotonic()
        small = asked.verb(graph)
        seconds = time.monotonic() - began
        say(f"{_saved(graph, small)}. Now the files are written and measured.")
        space = Workspace(out, settings, say)
        space.seconds.clear()  # of an earlier call, which began in the same way
        if asked.name is not None:
            space.seconds[asked.name] = seconds
        with space.timed("lower"):
            graph.save(space.inner / stages.ORIGINAL)
            before = lower(graph, target.name, space.inner / stages.lowered(target.suffix))
            after = lower(small, target.name, out / f"model{target.suffix}", weights=asked.stored)
            deliver(small, data, target.name, out)
        with space.timed("verify"):
            pair = OriginalAndCompressed(graph, before, small, after)
            threads, batch = asked.deployment.threads, asked.deployment.batch
            original = Baseline(None) if asked.data is None else judge_original(before, data, threads)
            measured = verify(
                pair, data, Budget(), threads=threads, batch=batch, original=original, trained=asked.trained
            )
        content = what_was_made(
            space,
            small,
            Budget(),
            asked.seed,
            measured,
            inputs,
            _notes(asked, measured, out),
            candidates=[],
            data_source=data.source,
        )
        report.write(content, out)
    return content


def _saved(graph: Graph, small: Graph) -> str:
    before, after = graph.cost(), small.cost()
    return (
        f"{before.params:,} parameters became {after.params:,}, and {before.macs:,} MACs became {after.macs:,}"
        if (before.params, before.macs) != (after.params, after.macs)
        else f"{after.params:,} parameters and {after.macs:,} MACs, as before"
    )


def _notes(asked: OneTechnique, measured: Mapping[str, Any], out: Path) -> list[str]:
    """Returns what a reader must know, the most important first."""
    notes = [f"Warning: {why}." for why in measured["missed"]]
    if asked.name is not None and find_technique(asked.name).stage == "structure":
        original = out / INNER / stages.ORIGINAL
        notes.append(f"Nothing was trained: penjing recover {out} --teacher {original} goes on from here.")
    if asked.data is None:
        notes.append("Without data nothing tells how good the answers still are: only time and sizes were measured.")
    elif measured["baseline"]["metric"] is None:
        parity = measured["parity"]
        notes.append(
            f"Without labels, agreement with the original stands in for the metric: {parity['agreement_measure']}, which is "
            f"{parity['agreement_with_original']:.4f}."
        )
    return [*notes, *measured["warnings"]]
