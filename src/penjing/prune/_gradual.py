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

from penjing.data import Data
from penjing.errors import PenjingError
from penjing.graph import Graph, channels
from penjing.prune._held import Decision, Held, HeldUnits, HeldWeights, Masks
from penjing.prune._prune import understood
from penjing.prune._wanted import Wanted
from penjing.prune.allocations._registry import Rounding, at_least
from penjing.prune.allocations._registry import find as find_allocation
from penjing.prune.criteria import criteria
from penjing.prune.evidence import Evidence
from penjing.prune.schedules import Moment, schedules
from penjing.prune.schedules import find as find_schedule
from penjing.prune.weights import weights

# How often in the course of a training it is decided what goes; criteria that look at data cost a pass each time.
DECISIONS = 50
DECISIONS_FROM_DATA = 10
# Between the two thresholds of splicing, 0.9 and 1.1 of one as in the authors' code, everything stays as it is.
BAND = 0.1


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
        self._schedule = find_schedule(schedule)
        wanted = understood(graph, amount, criterion, granularity, allocation, round_to, min_channels, units, data)
        removes = wanted.granularity.removes
        if removes not in self._schedule.removes:
            raise PenjingError(_misfit(schedule, granularity, removes))
        self._wanted = replace(wanted, schedule=schedule)
        self._goes = _share_of_all(wanted)
        self.graph = copy.deepcopy(graph)
        self._given = dict(self.graph.masks)
        self._held: Held
        if removes == "weights":
            self._held = HeldWeights(weights(self.graph, include=include, exclude=exclude))
        else:
            found = channels(self.graph, include=include, exclude=exclude, units=units)
            self._held = HeldUnits(found, at_least(min_channels, round_to))
        # A pass over the training data sets its epoch; the one that is trained on must not notice.
        apart = data and replace(data, train=copy.copy(data.train), calibration=copy.copy(data.calibration))
        self._evidence = Evidence(self.graph, (), apart, batches, seed)
        self._decisions = DECISIONS_FROM_DATA if criteria[criterion].needs else DECISIONS
        self._log = log or logging.getLogger("penjing.prune").info
        self._made_of = repr([
            schedule, amount, criterion, granularity, allocation, getattr(round_to, "__qualname__", round_to),
            min_channels, units, list(include), list(exclude), batches, seed,
        ])  # fmt: skip
        self.trainings = self._schedule.trainings
        course = [self._schedule.at(i / 100, self._goes) for i in range(100)]
        self._marks_first = any(moment.decay or moment.dropout for moment in course)
        self._returns = any(moment.returns for moment in course)
        self._scales = self._norm_scales() if any(moment.sparsity for moment in course) else []
        self.returned: dict[str, int] = {}
        self._training, self._tick, self._draws = 0, 0, 0
        self._now = Moment()
        self._went_back = False
        self._marked: Masks = {}  # what is to go, and has not yet gone
        self._hidden: dict[str, Tensor] = {}  # the values behind the masks
        self._early: dict[str, Tensor] = {}
        self._steps: list[dict[str, Any]] = []
        self._hooks: list[Any] = []

    # What a training calls

    def begin(self, training: int = 0) -> None:
        """Does what is to be done before a training, the first of which is number 0."""
        self._training, self._tick = training, 0
        moment = self._at(0.0)
        if self._marks_first and not self._marked and training == 0:
            self._mark()
        self._decide(moment)
        if moment.rewind:
            self.graph.load_state_dict(self._early)
            self.graph.apply_masks()
        self._save(moment)

    def __call__(self, graph: nn.Module, progress: float) -> None:
        """Does what is to be done after an optimiser step, when this share of the training's steps is done."""
        self._collect()
        if progress >= 1 and self._training + 1 < self.trainings:
            return  # that moment is the next training's
        moment = self._at(progress)
        self._save(moment)
        tick = math.floor(progress * self._decisions + 1e-9)
        if tick > self._tick:
            self._tick = tick
            self._decide(moment)
        if moment.dropout:
            self._drop(moment.dropout)

    def penalty(self, graph: nn.Module, progress: float) -> Tensor | None:
        """Returns what is to be added to the loss of the next step, if anything."""
        moment, terms = self._at(progress), []
        if moment.decay and self._marked:
            gone = ((self.graph.tensor(name), mask) for name, mask in self._marked.items())
            terms += [moment.decay / 2 * (tensor * ~mask.to(tensor.device)).square().sum() for tensor, mask in gone]
        if moment.sparsity:
            terms += [moment.sparsity * self.graph.tensor(name).abs().sum() for name in self._scales]
        return torch.stack(terms).sum() if terms else None

    def finish(self) -> Graph:
        """Returns the pruned graph; of channels, one in which they no longer are. Its `plan` tells what went.

        Where a training was stopped early, the rest goes now.
        """
        end = self._schedule.at(1.0, self._goes)
        if end != self._now and not self._went_back:
            self._decide(end)
        small = self._held.finish(self.graph)
        small.masks = {name: mask for name, mask in small.masks.items() if name in self._given or not bool(mask.all())}
        for step in self._steps:
            if self._returns:
                step["setting"] += f"; {self.returned.get(step['place'], 0)} came back"
        small.plan += self._steps
        if self._returns:
            self._log(f"{sum(self.returned.values())} weights or units came back after they were pruned.")
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
        self._went_back = True

    def state_dict(self) -> dict[str, Any]:
        """Returns where it stands, beside the graph's weights and masks: tensors and plain values."""
        return {
            "made_of": self._made_of,
            "training": self._training,
            "tick": self._tick,
            "draws": self._draws,
            "now": asdict(self._now),
            "marked": dict(self._marked),
            "hidden": dict(self._hidden),
            "early": dict(self._early),
            "steps": copy.deepcopy(self._steps),
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
        self._marked, self._hidden, self._early = dict(state["marked"]), dict(state["hidden"]), dict(state["early"])
        self._steps, self.returned = copy.deepcopy(state["steps"]), dict(state["returned"])

    # Deciding

    def _at(self, progress: float) -> Moment:
        return self._schedule.at((self._training + progress) / self.trainings, self._goes)

    def _decide(self, moment: Moment) -> None:
        before, self._now = self._now, moment
        if moment.share == 0.0:
            if before.share:
                self._lift()
            if moment.dropout:
                self._reveal()
                self._mark()
        elif moment.returns:
            self._splice(moment.share)
        elif before.returns or before.dropout:
            self._reveal()
            self._hold(self._chosen(moment.share))
        elif self._marked:
            self._hold(Decision(self._marked, {}, self._steps))
        elif moment.share != before.share:
            self._hold(self._chosen(moment.share))

    def _chosen(self, share: float, beside: int = 0) -> Decision:
        """Asks what should go, of the graph as it is; with `beside`, by the lower (−1) or upper (1) threshold."""
        training = self.graph.training
        self.graph.eval()
        try:
            with warnings.catch_warnings():
                if self._steps:  # what is skipped was told once
                    warnings.simplefilter("ignore")
                return self._held.decide(self._evidence, _scaled(self._wanted, share, beside))
        finally:
            self.graph.train(training)

    def _mark(self) -> None:
        decision = self._chosen(1.0)
        self._marked, self._steps = decision.masks, decision.steps

    def _hold(self, decision: Decision) -> None:
        """Lets go for good."""
        with torch.no_grad():
            for name, values in decision.weights.items():
                self.graph.tensor(name).copy_(values)
        self.graph.masks, self._steps, self._marked = dict(decision.masks), decision.steps, {}
        self.graph.apply_masks()

    def _lift(self) -> None:
        """Gives all back, from zero on."""
        self.graph.masks = dict(self._given)
        self._steps = [
            step | {"after": step["before"], "setting": f"{step['setting']}; dense again"} for step in self._steps
        ]

    def _splice(self, share: float) -> None:
        """Lets go below the lower threshold, takes back above the upper one, and leaves alone what lies between."""
        old = self.graph.masks
        self._reveal()
        surely, perhaps = self._chosen(share, -1), self._chosen(share, 1)
        masks = {}
        for name, above in perhaps.masks.items():
            every = torch.ones_like(above)
            masks[name] = surely.masks.get(name, every) & (above | old.get(name, every).to(above.device))
        self._steps = perhaps.steps
        before, after = self._held.gone(old), self._held.gone(masks)
        for place, gone in before.items():
            back = gone.cpu() & ~after[place].cpu() if place in after else gone.cpu()
            self.returned[place] = self.returned.get(place, 0) + int(back.sum())
        self._hide(masks)

    def _drop(self, probability: float) -> None:
        """Draws what the next step does without."""
        self._reveal()
        self._draws += 1
        generator = torch.Generator().manual_seed(self._evidence.seed << 32 | self._draws)
        drawn = self._held.drawn(self._marked, probability, generator)
        self._hide({name: mask & self._given.get(name, mask) for name, mask in drawn.items()})
        if not self._hooks:
            self._hooks = [self._without_gradient(name) for name in drawn]

    # The values behind the masks
    #
    # While weights may return, a masked entry is zero during a step, and the gradient there is that of the masked network,
    # as the paper wants it. After the step the entry holds exactly what the optimiser made of this gradient: −lr · (gradient
    # and its momentum), or Adam's step. Weight decay adds nothing, since it shrinks a zero. So the sum of what is left
    # behind, step by step, is how the hidden value would have moved by the gradients alone; it is added up here before the
    # entry becomes zero again. The optimiser's momentum of the entry goes on undisturbed when the weight is back.

    def _hide(self, masks: Masks) -> None:
        self._hidden = {name: self.graph.tensor(name).detach() * ~mask for name, mask in masks.items()}
        self.graph.masks = masks
        self.graph.apply_masks()

    def _collect(self) -> None:
        for name, values in self._hidden.items():
            tensor = self.graph.tensor(name).detach()
            left = tensor * ~self.graph.masks[name]
            if name in self._given:
                left *= self._given[name].to(left.device)
            self._hidden[name] = values.to(left.device) + left
        self.graph.apply_masks()

    def _reveal(self) -> None:
        with torch.no_grad():
            for name, values in self._hidden.items():
                self.graph.tensor(name).add_(values.to(self.graph.tensor(name).device))
        self._hidden, self.graph.masks = {}, dict(self._given)

    def _without_gradient(self, name: str) -> Any:
        """Keeps gradients from what was dropped out: unlike a pruned weight that may return, it takes no part in the step."""
        return self.graph.tensor(name).register_hook(
            lambda gradient: (
                gradient * self.graph.masks[name] if self._now.dropout and name in self._hidden else gradient
            )
        )

    def _save(self, moment: Moment) -> None:
        if moment.saves:
            self._early = {name: tensor.detach().clone() for name, tensor in self.graph.state_dict().items()}

    def _norm_scales(self) -> list[str]:
        assert isinstance(self._held, HeldUnits)
        groups = self._held.channels.groups
        found = dict.fromkeys(e.tensor for group in groups for e in group.entries if e.role == "scale")
        if not found:
            raise PenjingError(
                f"schedule='{self._schedule.name}' trains the scales of norms, and behind no channels that can be removed "
                "stands a norm that has one. schedule='growing_reg' needs none."
            )
        return list(found)


def _share_of_all(wanted: Wanted) -> float:
    """Returns the share that is to go in the end, 0 if that is no single number."""
    if wanted.granularity.keeps is not None:
        n, m = wanted.granularity.keeps
        return 1 - n / m
    own = find_allocation(wanted.allocation)[1] is not None
    return wanted.amount if isinstance(wanted.amount, float | int) and not own else 0.0


def _scaled(wanted: Wanted, share: float, beside: int = 0) -> Wanted:
    """Returns what is wanted when this share of it is to be gone.

    Of n:m, as many of every m are gone as is allowed by then; of a threshold, the share is that of the limit.
    """
    if wanted.granularity.keeps is not None:
        n, m = wanted.granularity.keeps
        n = m - math.floor(share * (m - n) + 1e-9)
        return replace(wanted, granularity=replace(wanted.granularity, arguments={"n": n, "m": m}))
    if find_allocation(wanted.allocation)[1] is not None:
        return replace(wanted, amount=wanted.amount * share * (1 + BAND * beside))

    def around(amount: float) -> float:
        # A tenth of what goes or of what stays, whichever is less: a tenth more than 95 % can't go.
        return share * amount + beside * BAND * min(share * amount, 1 - share * amount)

    if isinstance(wanted.amount, Mapping):
        return replace(wanted, amount={place: around(amount) for place, amount in wanted.amount.items()})
    return replace(wanted, amount=around(wanted.amount))


def _misfit(schedule: str, granularity: str, removes: str) -> str:
    able = ", ".join(sorted(name for name in schedules if removes in find_schedule(name).removes))
    return (
        f"schedule='{schedule}' does not go with granularity='{granularity}'; {able} {'do' if ',' in able else 'does'}."
    )
