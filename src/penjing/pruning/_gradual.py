"""Carries a pruning schedule out during training: decides which weights or units go, and holds them at zero.

The training itself is the caller's.
"""

import copy
import logging
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
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
from penjing.penalties import Structure, bn_scale
from penjing.pruning._hidden_weights import HiddenWeights, Masks, masks_on_devices
from penjing.pruning._prune import selection_of
from penjing.pruning._scheduled_selection import ScheduledSelection
from penjing.pruning._units import units_of
from penjing.pruning._zeroed import Decision, Zeroed, ZeroedChannels, ZeroedWeights
from penjing.pruning.allocations._registry import Rounding, at_least
from penjing.pruning.doors import RULES
from penjing.pruning.schedules import Moment, find
from penjing.pruning.settings import PruningSettings

# How many times per training it is decided which weights or units go. The more a decision costs, the fewer there are: a
# decision only looks at weights, passes over data, or needs a training of its own.
DECISIONS, DECISIONS_FROM_DATA, DECISIONS_FROM_TRAINING = 50, 10, 4


class Gradual:
    """Prunes a copy of a graph during one or several trainings.

    An instance is a callback, called as `pruning(graph, progress)` after each optimiser step, and
    `pruning.penalty(graph, progress)` returns a term of the loss. `penjing.prune` uses it as the example does.

    Attributes:
        graph: the copy, which the caller trains. Its `masks` hold pruned weights at zero.
        trainings: the number of trainings in a row, each with a progress from 0 to 1.
        returned: the number of weights (or units) that came back after they had been pruned, by place.

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
        """Takes the arguments of `penjing.prune`, which documents them.

        Raises:
            PenjingError: a name is unknown, or two choices exclude each other.
        """
        settings = PruningSettings(
            amount, criterion, granularity, allocation, round_to, min_channels, units, include, exclude, batches, seed
        )
        selection = selection_of(graph, data, settings)
        self._scheduled = ScheduledSelection(find(schedule), replace(selection, schedule=schedule))
        self.trainings = self._scheduled.schedule.trainings
        self.graph = copy.deepcopy(graph)
        self._given = dict(self.graph.masks)
        self._zeroed: Zeroed
        if selection.granularity.removes == "weights":
            self._zeroed = ZeroedWeights(weights(self.graph, **settings.where), selection)
        else:
            found = units_of(self.graph, selection.granularity, **settings.where, units=units)
            self._zeroed = ZeroedChannels(found, at_least(min_channels, round_to))
        # A pass over the training data sets the epoch of its loader; the loader that the training reads must keep its own.
        apart = data and replace(data, train=copy.copy(data.train), calibration=copy.copy(data.calibration))
        self._evidence = Evidence(self.graph, (), apart, batches, seed)
        self._decisions = _decisions(selection.criterion.needs | selection.allocation.entry.needs)
        self._log = log or logging.getLogger("penjing.prune").info
        self._made_of = repr([
            schedule, amount, criterion, granularity, allocation, getattr(round_to, "__qualname__", round_to),
            min_channels, units, list(include), list(exclude), batches, seed,
        ])  # fmt: skip
        self._structure = Structure(self.graph, groups=self._zeroed.groups())
        self._check_scales()
        self._hidden = HiddenWeights(self.graph)
        self.returned: dict[str, int] = {}
        self._training, self._tick, self._draws = 0, 0, 0
        self._now = Moment()
        self._final = False
        self._marked: Masks = {}  # weights that will go but haven't gone yet
        self._early: dict[str, Tensor] = {}
        self._steps: Sequence[Option] = []

    # The methods that a training calls

    def begin(self, training: int = 0) -> None:
        """Prepares for a training; `training` counts from 0. Call it before the training's first step."""
        self._training, self._tick = training, 0
        if training == 0 and (self._scheduled.ever("decay") or self._scheduled.ever("dropout")):
            self._mark()
        if training == 0 and self._scheduled.ever("dropout"):
            self._hidden.watch()
        moment = self._scheduled.at(training, 0.0)
        self._decide(moment)
        if moment.rewind:
            self.graph.load_state_dict(self._early)
            self.graph.apply_masks()
        self._save(moment)

    def __call__(self, graph: nn.Module, progress: float) -> None:
        """Acts after an optimiser step; `progress` is the share of the training's steps that are done, from 0 to 1."""
        self._hidden.collect()
        if progress >= 1 and self._training + 1 < self.trainings:
            return  # the next training begins with this moment
        moment = self._scheduled.at(self._training, progress)
        self._save(moment)
        tick = math.floor(progress * self._decisions + 1e-9)
        if tick > self._tick:
            self._tick = tick
            self._decide(moment)
        if self._now.dropout:
            self._drop(moment.dropout)

    def penalty(self, graph: nn.Module, progress: float) -> Tensor | None:
        """Returns the term to add to the loss of the next step; None if there is none."""
        moment, terms = self._scheduled.at(self._training, progress), []
        if moment.decay and self._marked:
            marked = {name: mask for name, mask in self._marked.items() if self.graph.tensor(name).requires_grad}
            parts = [
                self.graph.tensor(name) * ~mask.to(self.graph.tensor(name).device) for name, mask in marked.items()
            ]
            terms += [moment.decay / 2 * part.square().sum() for part in parts]
        if moment.sparsity:
            terms.append(moment.sparsity * bn_scale(self._structure))
        return torch.stack(terms).sum() if terms else None

    def finish(self) -> Graph:
        """Returns the pruned graph, with pruned channels removed; its `plan` lists the changes.

        If a training was stopped early, the rest of the amount is pruned now.
        """
        self._hidden.release()
        end = self._scheduled.at(self.trainings - 1, 1.0)
        if end != self._now and not self._final:
            self._decide(end)
        if self._scheduled.ever("returns"):
            self._steps = [
                replace(step, found={**step.found, "returned": self.returned.get(step.place.path, 0)})
                for step in self._steps
            ]
            self._log(f"{sum(self.returned.values())} weights or units that had been pruned came back.")
        self.graph.plan += self._steps
        small = self._zeroed.finish(self.graph)
        small.masks = {name: mask for name, mask in small.masks.items() if name in self._given or not bool(mask.all())}
        return small

    def snapshot(self) -> dict[str, Any]:
        """Returns the state that `go_back` restores."""
        weights = {name: tensor.clone() for name, tensor in self.graph.state_dict().items()}
        return {"weights": weights, "masks": dict(self.graph.masks), "state": self.state_dict()}

    def go_back(self, snapshot: Mapping[str, Any]) -> None:
        """Restores a snapshot. Only `finish` may follow, and prunes nothing more."""
        self.graph.load_state_dict(snapshot["weights"])
        self.graph.masks = dict(snapshot["masks"])
        self.load_state_dict(snapshot["state"])
        self._final = True

    def state_dict(self) -> dict[str, Any]:
        """Returns the state besides the graph's weights and masks, as tensors and plain values."""
        return {
            "made_of": self._made_of,
            "training": self._training,
            "tick": self._tick,
            "draws": self._draws,
            "now": asdict(self._now),
            "marked": dict(self._marked),
            "hidden": dict(self._hidden.values),
            "early": dict(self._early),
            "steps": [step.to_json() for step in self._steps],
            "returned": dict(self.returned),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over the state of another instance that was made with the same choices.

        Raises:
            PenjingError: the other instance was made with other choices.
        """
        if state["made_of"] != self._made_of:
            raise PenjingError(f"This state belongs to the pruning {state['made_of']}, not to {self._made_of}.")
        self._training, self._tick, self._draws = state["training"], state["tick"], state["draws"]
        self._now = Moment(**state["now"])
        self._marked, self._early = dict(state["marked"]), dict(state["early"])
        self._hidden.values, self._hidden.learns = dict(state["hidden"]), not self._now.dropout
        self._steps, self.returned = [Option.from_json(step) for step in state["steps"]], dict(state["returned"])

    # Deciding

    def _decide(self, moment: Moment) -> None:
        """Takes the graph from the schedule's last moment to this one."""
        before, self._now = self._now, moment
        self._hidden.learns = not moment.dropout
        if moment.share == 0.0:
            if before.share:
                self._lift()
            if moment.dropout:
                self._hidden.reveal()
                self._mark()
        elif moment.returns:
            self._splice(moment.share)
        elif before.returns or before.dropout:
            self._hidden.reveal()
            self._hold(self._chosen(moment.share))
        elif self._marked:
            self._hold(Decision(self._marked, {}, self._steps))
        elif moment.share != before.share:
            self._hold(self._chosen(moment.share))

    def _chosen(self, share: float, beside: int = 0) -> Decision:
        """Returns what should go from the graph as it is; `beside` selects the lower (−1) or the upper (1) threshold."""
        with warnings.catch_warnings():
            if self._steps:  # the first decision warned of skipped places already
                warnings.simplefilter("ignore")
            return self._zeroed.decide(self._evidence, self._scheduled.selection_at(share, beside))

    def _mark(self) -> None:
        decision = self._chosen(1.0)
        self._marked, self._steps = decision.masks, decision.steps

    def _hold(self, decision: Decision) -> None:
        """Prunes the weights or units of a decision: masks hold them at zero from now on."""
        with torch.no_grad():
            for name, values in decision.weights.items():
                self.graph.tensor(name).copy_(values)
        self.graph.masks = masks_on_devices(self.graph, decision.masks)
        self._steps, self._marked = decision.steps, {}
        self.graph.apply_masks()

    def _lift(self) -> None:
        """Lets all pruned weights train again, from zero."""
        self.graph.masks = masks_on_devices(self.graph, self._given)
        self._steps = [
            replace(step, after=step.before, found={**step.found, "dense_again": True}) for step in self._steps
        ]

    def _splice(self, share: float) -> None:
        """Prunes weights below the lower threshold, restores those above the upper one, and leaves those between as they are.

        Other weights aren't adjusted to make up for pruned ones, since these may return.
        """
        old = self.graph.masks
        self._hidden.reveal()
        surely, perhaps = self._chosen(share, -1), self._chosen(share, 1)
        masks = {}
        for name, above in perhaps.masks.items():
            every = torch.ones_like(above)
            masks[name] = surely.masks.get(name, every) & (above | old.get(name, every).to(above.device))
        self._steps = perhaps.steps
        self._hidden.hide(masks)
        for place, count in self._zeroed.returned(old, masks).items():
            self.returned[place] = self.returned.get(place, 0) + count

    def _drop(self, probability: float) -> None:
        """Draws the weights or units that the next step drops."""
        self._hidden.reveal()
        self._draws += 1
        generator = torch.Generator().manual_seed(self._evidence.seed << 32 | self._draws)
        drawn = self._zeroed.drawn(self._marked, probability, generator)
        self._hidden.hide({name: mask & self._given.get(name, mask).to(mask.device) for name, mask in drawn.items()})

    def _save(self, moment: Moment) -> None:
        if moment.saves:
            self._early = {name: tensor.detach().clone() for name, tensor in self.graph.state_dict().items()}

    def _check_scales(self) -> None:
        if self._scheduled.ever("sparsity") and not self._structure.scales():
            raise PenjingError(
                f"schedule='{self._scheduled.schedule.name}' trains the scales of norms, and no channels that can be removed "
                "have a norm with scales behind them. schedule='growing_reg' needs none."
            )


def _decisions(needs: AbstractSet[str]) -> int:
    return DECISIONS_FROM_TRAINING if "training" in needs else DECISIONS_FROM_DATA if needs else DECISIONS
