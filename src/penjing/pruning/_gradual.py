"""A schedule at work: it decides in the course of a training what goes, and holds that at zero. It trains nothing itself."""

import copy
import logging
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor, nn

from penjing.checks import FUNCTION, TEXT, checked, optional
from penjing.data import Data
from penjing.errors import PenjingError
from penjing.evidence import Evidence
from penjing.graph import Graph, Option
from penjing.graph.weights import weights
from penjing.pruning._course import Course
from penjing.pruning._held import Decision, Held, HeldUnits, HeldWeights
from penjing.pruning._prune import understood
from penjing.pruning._shadow import Masks, Shadow, beside
from penjing.pruning._units import units_of
from penjing.pruning.allocations._registry import Rounding, at_least
from penjing.pruning.allocations._registry import find as find_allocation
from penjing.pruning.criteria import criteria
from penjing.pruning.doors import RULES
from penjing.pruning.schedules import Moment, find

# How often in the course of a training it is decided what goes, by what each time costs: nothing but looking at weights,
# passes over data, or a training of its own.
DECISIONS, DECISIONS_FROM_DATA, DECISIONS_FROM_TRAINING = 50, 10, 4


class Gradual:
    """Prunes a copy of a graph in the course of one or several trainings.

    It is a callback, `pruning(graph, progress)` after each optimiser step, and gives a term of the loss,
    `pruning.penalty(graph, progress)`. `penjing.prune` does with it what the example does.

    Attributes:
        graph: the copy, to be trained. What is gone is held at zero by its `masks`.
        trainings: how many trainings follow one another, each with a progress from 0 to 1.
        returned: how many weights (or units) came back after they were gone, by place.

    Example:
        >>> pruning = Gradual(graph, 0.9, schedule="cubic", granularity="element")  # doctest: +SKIP
        >>> for training in range(pruning.trainings):  # doctest: +SKIP
        ...     pruning.begin(training)
        ...     recover(pruning.graph, data, callbacks=[pruning], penalty=pruning.penalty)
        >>> sparse = pruning.finish()  # doctest: +SKIP
    """

    @checked(**RULES, schedule=TEXT, log=optional(FUNCTION))
    def __init__(
        self,
        graph: Graph,
        amount: float | Mapping[str, float] | None = None,
        *,
        schedule: str = "cubic",
        criterion: str = "l2",
        granularity: str = "filter",
        allocation: str = "uniform",
        round_to: Rounding = None,
        min_channels: int = 1,
        units: str = "auto",
        data: Data | None = None,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        batches: int = 16,
        seed: int = 0,
        log: Callable[[str], None] | None = None,
    ) -> None:
        """Takes what `penjing.prune` takes, which documents it.

        Raises:
            PenjingError: an unknown name, or choices that don't fit one another.
        """
        wanted = understood(
            graph, amount, criterion, granularity, allocation, round_to, min_channels, units, data, include=include,
            exclude=exclude, batches=batches, seed=seed,
        )  # fmt: skip
        self._course = Course(find(schedule), replace(wanted, schedule=schedule))
        self.trainings = self._course.schedule.trainings
        self.graph = copy.deepcopy(graph)
        self._given = dict(self.graph.masks)
        self._held: Held
        if wanted.granularity.removes == "weights":
            self._held = HeldWeights(weights(self.graph, include=include, exclude=exclude), wanted)
        else:
            found = units_of(self.graph, wanted.granularity, include=include, exclude=exclude, units=units)
            self._held = HeldUnits(found, at_least(min_channels, round_to))
        # A pass over the training data sets its epoch; the one that is trained on must not notice.
        apart = data and replace(data, train=copy.copy(data.train), calibration=copy.copy(data.calibration))
        self._evidence = Evidence(self.graph, (), apart, batches, seed)
        self._decisions = _decisions(criteria[criterion].needs | find_allocation(allocation)[0].needs)
        self._log = log or logging.getLogger("penjing.prune").info
        self._made_of = repr([
            schedule, amount, criterion, granularity, allocation, getattr(round_to, "__qualname__", round_to),
            min_channels, units, list(include), list(exclude), batches, seed,
        ])  # fmt: skip
        self._scales = self._norm_scales() if self._course.ever("sparsity") else []
        self._shadow = Shadow(self.graph)
        self.returned: dict[str, int] = {}
        self._training, self._tick, self._draws = 0, 0, 0
        self._now = Moment()
        self._final = False
        self._marked: Masks = {}  # what is to go, and has not yet gone
        self._early: dict[str, Tensor] = {}
        self._steps: Sequence[Option] = []

    # What a training calls

    def begin(self, training: int = 0) -> None:
        """Does what is to be done before a training, the first of which is number 0."""
        self._training, self._tick = training, 0
        if training == 0 and (self._course.ever("decay") or self._course.ever("dropout")):
            self._mark()
        if training == 0 and self._course.ever("dropout"):
            self._shadow.watch()
        moment = self._course.at(training, 0.0)
        self._decide(moment)
        if moment.rewind:
            self.graph.load_state_dict(self._early)
            self.graph.apply_masks()
        self._save(moment)

    def __call__(self, graph: nn.Module, progress: float) -> None:
        """Does what is to be done after an optimiser step, when this share of the training's steps is done."""
        self._shadow.collect()
        if progress >= 1 and self._training + 1 < self.trainings:
            return  # that moment is the next training's
        moment = self._course.at(self._training, progress)
        self._save(moment)
        tick = math.floor(progress * self._decisions + 1e-9)
        if tick > self._tick:
            self._tick = tick
            self._decide(moment)
        if self._now.dropout:
            self._drop(moment.dropout)

    def penalty(self, graph: nn.Module, progress: float) -> Tensor | None:
        """Returns what is to be added to the loss of the next step, if anything."""
        moment, terms = self._course.at(self._training, progress), []
        if moment.decay and self._marked:
            marked = {name: mask for name, mask in self._marked.items() if self.graph.tensor(name).requires_grad}
            parts = [
                self.graph.tensor(name) * ~mask.to(self.graph.tensor(name).device) for name, mask in marked.items()
            ]
            terms += [moment.decay / 2 * part.square().sum() for part in parts]
        if moment.sparsity:
            terms += [moment.sparsity * self.graph.tensor(name).abs().sum() for name in self._scales]
        return torch.stack(terms).sum() if terms else None

    def finish(self) -> Graph:
        """Returns the pruned graph; of channels, one in which they no longer are. Its `plan` tells what went.

        Where a training was stopped early, the rest goes now.
        """
        self._shadow.release()
        end = self._course.at(self.trainings - 1, 1.0)
        if end != self._now and not self._final:
            self._decide(end)
        if self._course.ever("returns"):
            self._steps = [
                replace(step, found={**step.found, "returned": self.returned.get(step.place.path, 0)})
                for step in self._steps
            ]
            self._log(f"{sum(self.returned.values())} that had been pruned came back.")
        self.graph.plan += self._steps
        small = self._held.finish(self.graph)
        small.masks = {name: mask for name, mask in small.masks.items() if name in self._given or not bool(mask.all())}
        return small

    def snapshot(self) -> dict[str, Any]:
        """Returns all that `go_back` needs."""
        weights = {name: tensor.clone() for name, tensor in self.graph.state_dict().items()}
        return {"weights": weights, "masks": dict(self.graph.masks), "state": self.state_dict()}

    def go_back(self, snapshot: Mapping[str, Any]) -> None:
        """Makes everything as it was when the snapshot was taken, for `finish`: nothing more goes."""
        self.graph.load_state_dict(snapshot["weights"])
        self.graph.masks = dict(snapshot["masks"])
        self.load_state_dict(snapshot["state"])
        self._final = True

    def state_dict(self) -> dict[str, Any]:
        """Returns where it stands, beside the graph's weights and masks: tensors and plain values."""
        return {
            "made_of": self._made_of,
            "training": self._training,
            "tick": self._tick,
            "draws": self._draws,
            "now": asdict(self._now),
            "marked": dict(self._marked),
            "hidden": dict(self._shadow.values),
            "early": dict(self._early),
            "steps": [step.to_json() for step in self._steps],
            "returned": dict(self.returned),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from where another stood that was made of the same choices.

        Raises:
            PenjingError: it was made of others.
        """
        if state["made_of"] != self._made_of:
            raise PenjingError(f"This state is of the pruning {state['made_of']}, not of {self._made_of}.")
        self._training, self._tick, self._draws = state["training"], state["tick"], state["draws"]
        self._now = Moment(**state["now"])
        self._marked, self._early = dict(state["marked"]), dict(state["early"])
        self._shadow.values, self._shadow.learns = dict(state["hidden"]), not self._now.dropout
        self._steps, self.returned = [Option.from_json(step) for step in state["steps"]], dict(state["returned"])

    # Deciding

    def _decide(self, moment: Moment) -> None:
        """Brings the graph from what held before to this moment."""
        before, self._now = self._now, moment
        self._shadow.learns = not moment.dropout
        if moment.share == 0.0:
            if before.share:
                self._lift()
            if moment.dropout:
                self._shadow.reveal()
                self._mark()
        elif moment.returns:
            self._splice(moment.share)
        elif before.returns or before.dropout:
            self._shadow.reveal()
            self._hold(self._chosen(moment.share))
        elif self._marked:
            self._hold(Decision(self._marked, {}, self._steps))
        elif moment.share != before.share:
            self._hold(self._chosen(moment.share))

    def _chosen(self, share: float, beside: int = 0) -> Decision:
        """Asks what should go, of the graph as it is; with `beside`, by the lower (−1) or upper (1) threshold."""
        with warnings.catch_warnings():
            if self._steps:  # what is skipped was told once
                warnings.simplefilter("ignore")
            return self._held.decide(self._evidence, self._course.wanted_at(share, beside))

    def _mark(self) -> None:
        decision = self._chosen(1.0)
        self._marked, self._steps = decision.masks, decision.steps

    def _hold(self, decision: Decision) -> None:
        """Lets go for good."""
        with torch.no_grad():
            for name, values in decision.weights.items():
                self.graph.tensor(name).copy_(values)
        self.graph.masks = beside(self.graph, decision.masks)
        self._steps, self._marked = decision.steps, {}
        self.graph.apply_masks()

    def _lift(self) -> None:
        """Gives all back, from zero on."""
        self.graph.masks = beside(self.graph, self._given)
        self._steps = [
            replace(step, after=step.before, found={**step.found, "dense_again": True}) for step in self._steps
        ]

    def _splice(self, share: float) -> None:
        """Lets go below the lower threshold, takes back above the upper one, and leaves alone what lies between.

        What makes up for weights that go is left out: they may return.
        """
        old = self.graph.masks
        self._shadow.reveal()
        surely, perhaps = self._chosen(share, -1), self._chosen(share, 1)
        masks = {}
        for name, above in perhaps.masks.items():
            every = torch.ones_like(above)
            masks[name] = surely.masks.get(name, every) & (above | old.get(name, every).to(above.device))
        self._steps = perhaps.steps
        self._shadow.hide(masks)
        for place, count in self._held.returned(old, masks).items():
            self.returned[place] = self.returned.get(place, 0) + count

    def _drop(self, probability: float) -> None:
        """Draws what the next step does without."""
        self._shadow.reveal()
        self._draws += 1
        generator = torch.Generator().manual_seed(self._evidence.seed << 32 | self._draws)
        drawn = self._held.drawn(self._marked, probability, generator)
        self._shadow.hide({name: mask & self._given.get(name, mask).to(mask.device) for name, mask in drawn.items()})

    def _save(self, moment: Moment) -> None:
        if moment.saves:
            self._early = {name: tensor.detach().clone() for name, tensor in self.graph.state_dict().items()}

    def _norm_scales(self) -> list[str]:
        scales = self._held.scales()
        if not scales:
            raise PenjingError(
                f"schedule='{self._course.schedule.name}' trains the scales of norms, and behind no channels that can be "
                "removed stands a norm that has one. schedule='growing_reg' needs none."
            )
        return scales


def _decisions(needs: frozenset[str]) -> int:
    return DECISIONS_FROM_TRAINING if "training" in needs else DECISIONS_FROM_DATA if needs else DECISIONS
