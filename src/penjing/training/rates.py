"""Finds a learning rate by a few steps at each of several, where nobody named one.

A short test favours small rates, since a long training mends later what a large rate spoils at first (Wu et al. 2018,
Understanding Short-Horizon Bias in Stochastic Meta-Optimization, arXiv:1803.02021). So this test doesn't look for the rate with
the lowest loss. As the range test of Smith 2017 (Cyclical Learning Rates for Training Neural Networks, arXiv:1506.01186), it
looks for the largest rate at which training still works. It begins with the usual rate, and goes to a smaller one only where
that is clearly better; the longer the run, the clearer it must be.
"""

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import islice
from typing import Any

from torch import nn

from penjing.training.objective import Objective
from penjing.training.optimizers import make_optimizer, set_rate
from penjing.training.randomness import batches, seed_generators
from penjing.training.settings import Variant
from penjing.training.speed import set_layout, threads_of
from penjing.training.tapped import Tapped

SHARES = (1.0, 0.3, 0.1, 0.03, 0.01)  # rates to try one after the other, as shares of the usual one
COARSE = SHARES[::2]  # the same where there are steps for a few only
FEWEST, MOST = 5, 10  # steps at each rate; momentum 0.9 looks back over about ten
TESTING = (
    0.25  # share of a run's number of steps that all trials together may take at most; most runs end after two or three
)
HELD = 2  # batches on which the loss is measured; no step is taken on them where the data has more
# A smaller rate is clearly better if the loss that it leaves is lower by this share, times the square root of how many times
# longer the run is than the trial: 13 % in a run of 400 steps, 40 % in one of 4,000.
CLEARLY = 0.02


def steps_tell(callbacks: Sequence[object]) -> bool:
    """Tells whether steps at the beginning of a run speak for its later ones.

    They don't where a callback takes weights or bits away in the course of the training: what is left needs larger rates than the
    graph at the beginning. Callbacks say by an attribute `same_throughout` that they do nothing of the kind.
    """
    return all(getattr(callback, "same_throughout", False) for callback in callbacks)


def find_rate(
    graph: nn.Module,
    objective: Objective,
    loader: Any,
    held: Sequence[Any],
    variant: Variant,
    usual: float,
    total: int,
    log: Callable[[str], None],
) -> float:
    """Returns the largest of a few rates than which the next smaller one isn't clearly better.

    Graph, signal and balance stay as they were; the caller must restore the random generators. Callbacks and a penalty take no
    part, as they may be bound to the graph itself.

    Args:
        graph: the student, on the objective's device.
        objective: gives the losses.
        loader: the training data.
        held: its first batches.
        variant: how steps are computed.
        usual: the largest rate to try; it is returned where the run is too short for a trial.
        total: steps of the run.
        log: called with messages for the user.
    """
    affordable = int(TESTING * total / objective.processes)  # each process takes the batches of all in a trial
    steps = min(MOST, max(FEWEST, affordable // len(SHARES)))
    number = affordable // steps
    if number < 2:
        return usual
    margin = CLEARLY * math.sqrt(total / steps)
    losses: dict[float, float] = {}  # by rate, from large to small
    chosen = usual
    for share in SHARES if number >= len(SHARES) else COARSE[:number]:
        rate = usual * share
        losses[rate] = loss_after(graph, objective, loader, held[:HELD], variant, rate, steps)
        if losses[chosen] - losses[rate] > margin * abs(losses[rate]) or not math.isfinite(losses[chosen]):
            chosen = rate
        elif rate != chosen:
            break
    told = ", ".join(f"{loss:.3g} at {rate:.2g}" for rate, loss in losses.items())
    log(f"Learning rate {chosen:.2g}, by the loss after {steps} steps each: {told}.")
    return chosen


def loss_after(
    graph: nn.Module,
    objective: Objective,
    loader: Any,
    held: Sequence[Any],
    variant: Variant,
    rate: float,
    steps: int,
) -> float:
    """Returns the mean loss on held-out batches, in the mode of training, that a few steps leave behind; infinity where it fails.

    The steps run on a copy; the rate rises along a line up to half of them and then stays.
    """
    model = copy.deepcopy(graph).train()
    set_layout(model, variant.channels_last)
    optimizer = make_optimizer(model, objective.settings, 0.0, objective.parameters())
    everything = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    balance = copy.deepcopy(objective.balance.state_dict())
    with objective.unchanged(), threads_of(variant), closing(objective.tapped(model).train()) as tapped:
        given = _first_epoch(loader, objective.settings.seed, len(held), steps * objective.processes)
        for index in range(steps):
            set_rate(optimizer, rate * min(1.0, 2 * (index + 1) / steps))
            mean = 0.0
            for batch in islice(given, objective.processes):
                loss = objective.loss(tapped, batch, variant) / objective.processes
                loss.backward()
                mean += float(loss.detach())
            norm = float(nn.utils.clip_grad_norm_(everything, objective.settings.clip_norm or math.inf))
            if not (math.isfinite(mean) and math.isfinite(norm)):
                return math.inf
            optimizer.step()
            optimizer.zero_grad()
            if getattr(model, "masks", None):
                model.apply_masks()  # type: ignore[operator]
        found = _loss(objective, tapped, held, variant, balance)
    return found if math.isfinite(found) else math.inf


def _first_epoch(loader: Any, seed: int, held: int, count: int) -> Iterator[Any]:
    """Yields so many batches: those of the first epoch behind the held-out ones, again and again."""
    first, taken, before = held if len(loader) > held else 0, 0, -1
    while taken > before:  # a loader that gives fewer batches than its length is refused once the run itself reads it
        before = taken
        for batch in islice(batches(loader, seed, 0), first, None):
            yield batch
            taken += 1
            if taken == count:
                return


def _loss(
    objective: Objective, tapped: Tapped, held: Sequence[Any], variant: Variant, balance: Mapping[str, Any]
) -> float:
    """Returns the mean loss of batches, each with the weights that a balance in this state gives."""
    losses = []
    for index, batch in enumerate(held):
        seed_generators(objective.settings.seed, index)  # the same dropout at each rate
        objective.balance.load_state_dict(balance)
        losses.append(float(objective.loss(tapped, batch, variant).detach()))
    return sum(losses) / len(losses)
