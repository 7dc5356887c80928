"""What the benchmarks of pruning share: trained networks, and pruning to a wanted cost."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import penjing as pj
from _rows import HERE as HERE
from _rows import Rows as Rows
from penjing.data._memory import MemoryLoader
from penjing.evidence import Evidence
from penjing.graph import remove
from penjing.pruning._selection import Selection
from penjing.pruning.allocations._registry import find as find_allocation
from penjing.pruning.criteria import Compensated, criteria
from penjing.pruning.granularities._registry import find
from penjing.pruning.reconstruction import readers

CLOSE = 0.004  # how near, relatively, a wanted cost is come by


def module(name: str, weights: Path) -> nn.Module:
    """Returns a network of the zoo with trained weights, in eval mode."""
    network = pj.zoo.build(name)
    network.load_state_dict(load_file(weights))
    return network.eval()


def network(name: str, weights: Path) -> pj.Graph:
    """Returns it captured."""
    return pj.capture(module(name, weights), pj.zoo.example_input(name))


def held_out(data: pj.Data, count: int, seed: int = 1) -> pj.Data:
    """Returns data in memory with `count` of the training images left out of training, to choose by instead of the test."""
    train = _in_memory(data)
    images, targets = train._images.permute(0, 2, 3, 1).numpy(), train._targets.numpy()
    order = np.random.default_rng(seed).permutation(len(images))
    held, rest = order[:count], order[count:]
    judged = MemoryLoader(images[held], targets[held], train._preprocess, batch_size=250)
    return replace(
        data, train=_only(train, rest), validation=judged, fingerprint=f"{data.fingerprint} without {count}",
        validation_files=None,
    )  # fmt: skip


def some(data: pj.Data, count: int, seed: int = 1) -> pj.Data:
    """Returns data in memory with so many of the training images; an epoch is shorter then."""
    train = _in_memory(data)
    order = np.random.default_rng(seed).permutation(len(train._targets))
    return replace(data, train=_only(train, order[:count]), fingerprint=f"{data.fingerprint}, {count}")


def _in_memory(data: pj.Data) -> MemoryLoader:
    assert isinstance(data.train, MemoryLoader)
    return data.train


def _only(train: MemoryLoader, kept: np.ndarray) -> MemoryLoader:
    return MemoryLoader(
        train._images.permute(0, 2, 3, 1).numpy()[kept], train._targets.numpy()[kept], train._preprocess,
        batch_size=train.batch_size, shuffle=True, augment=train._augment,
    )  # fmt: skip


def judge(graph: nn.Module, data: pj.Data) -> dict[str, float]:
    """Returns accuracy and mean loss on all validation data, in float32."""
    right = loss = count = 0.0
    graph.eval()
    with torch.no_grad():
        for inputs, targets in data.validation or ():
            outputs = graph(inputs)
            loss += float(nn.functional.cross_entropy(outputs, targets, reduction="sum"))
            right += int((outputs.argmax(1) == targets).sum())
            count += len(targets)
    return {"accuracy": right / count, "loss": loss / count}


def recalibrated(graph: pj.Graph, data: pj.Data, batches: int = 32) -> pj.Graph:
    """Returns a copy whose norms have statistics of the data anew, without any training.

    Which of two pruned networks will be better after tuning shows much better so than at once (Li et al., EagleEye:
    Fast Sub-net Evaluation for Efficient Neural Network Pruning, 2020).
    """
    found = copy.deepcopy(graph).train()
    with torch.no_grad():
        for inputs, _ in islice(iter(data.train or ()), batches):
            found(inputs)
    return found.eval()


@dataclass(frozen=True)
class Ranking:
    """What a criterion said of all channels, so that looking for the right amount scores once, not at each try.

    Attributes:
        criterion: the name that it is registered under.
        scores: of the units of each group, by its name.
    """

    criterion: str
    scores: dict[str, Tensor]

    def per(self, cost: Mapping[str, int], share: float, most: float = 1.0) -> dict[str, float]:
        """Returns the share of each group that goes if the lowest of all units' scores per cost go, `share` of them.

        The best unit of each group stays, and no group loses more than `most` of its units.
        """
        worth = {name: score.sort().values[:-1] / cost[name] for name, score in self.scores.items()}
        limit = torch.cat(list(worth.values())).quantile(share)
        return {name: min(most, int((values < limit).sum()) / len(self.scores[name])) for name, values in worth.items()}


def ranked(graph: pj.Graph, criterion: str, data: pj.Data, batches: int = 16, refit: bool = False) -> Ranking:
    """Scores the graph's channels, and registers what comes out as a criterion of its own.

    With `refit`, the layers that read what goes are then fitted by least squares to their old outputs, whatever the
    criterion (He et al., Channel Pruning for Accelerating Very Deep Neural Networks, 2017).
    """
    found = pj.channels(graph)
    evidence = Evidence(graph, found.groups, data, batches, 0, channels=found)
    selection = Selection(0.5, criteria[criterion], find("filter"), find_allocation("uniform"))
    judged = selection.saliency(evidence)
    units = readers(evidence).refitted if refit else judged.units
    known = Compensated(selection.scores(evidence, judged.saliency), units=units)

    def says(_: Evidence) -> Compensated:
        """What was found before."""
        return known

    name = f"{criterion}, as found {len(criteria)}"
    criteria.register(source="", level="unit", name=name)(says)
    return Ranking(name, {group.name: score for group, score in zip(found.groups, known.saliency, strict=True)})


def to_ratio(prune: Callable[[float], pj.Graph], macs: int, ratio: float) -> tuple[float, pj.Graph]:
    """Returns the amount, and the graph that it gives, with `ratio` times fewer MACs, or as few more as is found."""
    low, high, best = 0.0, 0.98, None
    for _ in range(14):
        amount = (low + high) / 2
        small = prune(amount)
        reached = macs / small.cost().macs
        if reached >= ratio and (best is None or reached < macs / best[1].cost().macs):
            best = amount, small
        if ratio <= reached <= ratio * (1 + CLOSE):
            break
        low, high = (amount, high) if reached < ratio else (low, amount)
    if best is None:
        raise SystemExit(f"no amount makes it {ratio}× smaller")
    return best


def group_norm(name: str, weights: Path, amount: float, everywhere: bool, round_to: int | None = None) -> pj.Graph:
    """Returns a ResNet after Torch-Pruning's group norm, captured; channels within blocks go, since its shortcuts break it.

    Args:
        name: the network's name in the zoo.
        weights: its trained weights.
        amount: share of the channels that go.
        everywhere: whether channels of all layers are compared, or those of each layer.
        round_to: the multiple to which channels are rounded.
    """
    import torch_pruning as tp

    model, example = module(name, weights), torch.randn(2, 3, 32, 32)
    inner = {block.conv1 for stage in (model.layer1, model.layer2, model.layer3) for block in stage}
    layers = {layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)}
    tp.pruner.GroupNormPruner(
        model,
        example,
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=amount,
        global_pruning=everywhere,
        round_to=round_to,
        ignored_layers=list(layers - inner),
    ).step()
    return pj.capture(model.eval(), example)


def macs_by_unit(graph: pj.Graph) -> dict[str, int]:
    """Returns what one unit of each group costs in the whole network: the MACs that go with it."""
    found, whole = pj.channels(graph), graph.cost().macs
    one = np.array([0])
    return {group.name: whole - remove(graph, found, {at: one}).cost().macs for at, group in enumerate(found.groups)}
