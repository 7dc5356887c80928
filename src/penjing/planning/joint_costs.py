"""What options cost together: a kernel by the channels on both of its sides, by its branch, and by what replaces it."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from torch import fx

from penjing.graph import Channels, Graph, Option, Place, branches, channels
from penjing.graph.cost import MACS
from penjing.graph.energy import MILLIJOULES, WITHIN_OTHERS, picojoules
from penjing.graph.memory import Lifetime, at_steps
from penjing.planning.assignment import Joint, Taken
from penjing.planning.latency.kernels import DEQUANTIZE, INT8, QUANTIZE, Kernel
from penjing.techniques import Scope

MOST_PLACES = 3  # places that the table of one kernel spans; channels of further groups count as if all stayed
NUMBER_BYTES = {INT8: 1.0}  # bytes of a weight or a value, 4 in other numbers; grids of few bits store weights in less
BIAS_BYTES = 4
LARGEST_FLAT = 3  # axes of outputs whose channels are on the last one; those of more have them behind the batch

UNKNOWN = "unknown"  # counts the options of which something isn't known, so that they aren't taken
TOO_LARGE = "too large"  # counts the tensors that are larger than the largest may be
Milliseconds = Callable[[Kernel], float | None]
"""The milliseconds of a kernel; None where they aren't known."""


@dataclass(frozen=True)
class Replacement:
    """What an option at a weight does to the graph.

    Attributes:
        kernels: those that stand for the weight's own, in float.
        gone: names of the other nodes that it takes away.
    """

    kernels: Sequence[Kernel]
    gone: frozenset[str] = frozenset()


Replacements = Mapping[str, Sequence[Replacement]]
"""What each option at a weight replaces, by the name of the weight's place."""


@dataclass(frozen=True)
class Choice:
    """The options at one place.

    Attributes:
        place: the place.
        options: what could be done there; the first entry is None, which leaves the place as it is.
        inside: name of the branch with which the place goes; "" if nothing that can go holds it. Such a place has one more
            option, behind all others: that it has gone.
    """

    place: Place
    options: tuple[Option | None, ...]
    inside: str = ""

    @property
    def name(self) -> str:
        """The place's name in an `Assignment`."""
        return name_of(self.place)

    @property
    def count(self) -> int:
        """The number of options, with the one that the place has gone."""
        return len(self.options) + bool(self.inside)

    @property
    def gone(self) -> int:
        """The number of the option that the place, or the branch itself, has gone; -1 if it can't."""
        if self.place.kind == "branch":
            return len(self.options) - 1
        return len(self.options) if self.inside else -1

    def option(self, number: int) -> Option | None:
        """Returns the option of a number; None where the place is left as it is, or has gone with a branch."""
        return self.options[number] if number < len(self.options) else None

    def left(self, option: int, units: int) -> int:
        """Returns how many of a group's units are left with an option."""
        if option == self.gone:
            return 0
        chosen = self.option(option)
        return units if chosen is None else int(chosen.setting["keep"])


def name_of(place: Place) -> str:
    """Returns a place's name in an `Assignment`."""
    return f"{place.kind} {place.path}"


@dataclass(frozen=True)
class _Side:
    """The channels on one side of a kernel: how many indices each unit of a group has there, and how many always stay."""

    copies: Mapping[int, int]
    pinned: int


class Structure:
    """The places of a graph at which channels or branches may go, and the kernels that depend on them.

    Attributes:
        choices: the places with their options, by name.
        implied: options that go with others.
    """

    choices: dict[str, Choice]
    implied: list[tuple[Taken, Taken]]

    def __init__(self, graph: Graph, options: Sequence[Option], scope: Scope) -> None:
        """Groups the options by place, and finds which places lie inside of which branches."""
        self._found: Channels = channels(graph, include=scope.include, exclude=scope.unpruned, units=scope.units)
        there = {branch.name: branch for branch in branches(graph, include=scope.include, exclude=scope.unremoved)}
        self._nodes = {node.name: node for node in graph.program.graph.nodes}
        by_place: dict[Place, list[Option]] = {}
        for option in options:
            by_place.setdefault(option.place, []).append(option)
        self._branches = {
            place.path: there[place.path] for place in by_place if place.kind == "branch" and place.path in there
        }
        self._inside = {name: frozenset((*one.nodes, one.addition)) for name, one in self._branches.items()}
        self.choices, self.implied = {}, []
        for place, some in by_place.items():
            choice = Choice(place, (None, *some), self._holder(graph, place) if place.kind == "group" else "")
            self.choices[choice.name] = choice
        self._weights = self._layers()
        self._going: dict[str, dict[str, set[int]]] = {}  # the options with which a node goes, by place
        self._groups = [self.choices.get(name_of(Place("group", group.name))) for group in self._found.groups]
        self._imply()

    def replacement(
        self, place: str, made: Graph, before: Mapping[str, Kernel], after: Mapping[str, Kernel]
    ) -> Replacement:
        """Returns what an option at a weight does, from a graph in which it is carried out.

        Args:
            place: the name of the weight's place.
            made: that graph.
            before: the kernels of the graph without it, by node.
            after: those of `made`.
        """
        own = {node for node, choice in self._weights.items() if choice.name == place}
        left = {node.name for node in made.program.graph.nodes}
        gone = {name for name, node in self._nodes.items() if node.op == "call_function"} - left
        kernels = [kernel for node, kernel in after.items() if node in own or before.get(node) != kernel]
        return Replacement(kernels, frozenset(gone))

    def note_gone(self, replacements: Replacements) -> None:
        """Takes note of which nodes go with which options at weights: there, nothing else is done then, and all channels stay.

        Args:
            replacements: what the options at weights do.
        """
        for name, some in replacements.items():
            for number, replacement in enumerate(some, 1):
                for node in sorted(replacement.gone & self._nodes.keys()):
                    self._going.setdefault(node, {}).setdefault(name, set()).add(number)
                    other = self._weights.get(node)
                    if other is not None and other.name != name:
                        self.implied.append(((name, number), (other.name, 0)))
                    if self._nodes[node].target in MACS:
                        self.implied += [((name, number), (group, 0)) for group in self._beside(node)]
        self.implied = list(dict.fromkeys(self.implied))

    def joints(
        self,
        kernels: Mapping[str, Kernel],
        ms: Milliseconds,
        replacements: Replacements = MappingProxyType({}),
        largest: float = math.inf,
        samples: int = 1,
        stored: Mapping[str, float] = MappingProxyType({}),
    ) -> Iterator[Joint]:
        """Yields what each kernel takes: "ms" of a call, "bytes" of weights and biases, "macs" and "energy" of a sample, in
        millijoules, and how many "layers" multiply.

        A kernel of unknown latency takes no time, with whatever channels. An option that puts such a kernel in the place of one
        whose latency is known would look free: it counts as "unknown".

        Args:
            kernels: the graph's kernels, by the names of their nodes; those of nodes that the graph hasn't never change.
            ms: the milliseconds of a kernel.
            replacements: what the options at weights put in the place of kernels.
            largest: bytes that a weight may take; options that leave a larger one count as "too large".
            samples: how many samples the kernels work on at once.
            stored: bytes of an entry of a kernel's weight, by the node's name, where it isn't `NUMBER_BYTES`.
        """
        for name, kernel in kernels.items():
            if kernel.op not in (QUANTIZE, DEQUANTIZE):  # of which few are left, at inputs and outputs
                entry = stored.get(name, NUMBER_BYTES.get(kernel.numbers, 4.0))
                yield self._joint(name, kernel, ms, replacements, largest, samples, entry)

    def memory(self, alive: Sequence[Lifetime], most: float = math.inf, largest: float = math.inf) -> Iterator[Joint]:
        """Yields what each activation takes at those steps at which the whole network needs more memory than is allowed.

        The amounts are called `at_step(0)`, `at_step(1)` and so on, in bytes. Since nothing that goes makes a step need more,
        the other steps keep the limit anyway.

        Args:
            alive: the activations of the whole network, in the numbers in which it computes.
            most: bytes that may be alive at once.
            largest: bytes that an activation may take; larger ones count as "too large".
        """
        crowded = [step for step, taken in enumerate(at_steps(alive)) if taken > most]
        for one in alive:
            steps = [step for step in crowded if one.born <= step <= one.dies]
            if not steps and one.bytes <= largest:
                continue
            side = self._outs(one.node)
            groups, places = self._around(one.node, side.copies)
            going = self._going.get(one.node, {})
            places += [self.choices[name] for name in going]
            found = np.zeros(tuple(choice.count for choice in places))
            for taken, left in self._each(groups, places):
                if any(taken[at] in going.get(place.name, ()) for at, place in enumerate(places)):
                    continue
                share = self._channels(side, left) / (self._channels(side, {}) or 1) if left else 1.0
                found[taken] = one.bytes * share
            amounts = {at_step(step): found for step in steps} | {TOO_LARGE: (found > largest).astype(float)}
            yield Joint(tuple(choice.name for choice in places), amounts)

    def kernels(self, kernels: Mapping[str, Kernel], replacements: Replacements = MappingProxyType({})) -> list[Kernel]:
        """Returns all kernels that the graph could have, each once."""
        found: dict[Kernel, None] = {}

        def note(kernel: Kernel) -> float:
            found[kernel] = None
            return 0.0

        for _ in self.joints(kernels, note, replacements):
            pass
        return list(found)

    def _joint(
        self,
        name: str,
        kernel: Kernel,
        ms: Milliseconds,
        replacements: Replacements,
        largest: float,
        samples: int,
        entry: float,
    ) -> Joint:
        node = self._nodes.get(name)
        outs = self._side(name, kernel.axis)
        source = node.all_input_nodes[0].name if node is not None and node.all_input_nodes else name
        ins = self._side(source, kernel.axis) if kernel.weight else outs
        weighty = sorted({*ins.copies, *outs.copies}, key=lambda g: -(ins.copies.get(g, 0) + outs.copies.get(g, 0)))
        groups, places = self._around(name, weighty)
        weight = self._weights.get(name)
        places += [weight] if weight is not None else []
        going = self._going.get(name, {})
        places += [self.choices[one] for one in going]
        shape = tuple(choice.count for choice in places)
        amounts = {
            amount: np.zeros(shape) for amount in ("ms", "bytes", "macs", "energy", "layers", UNKNOWN, TOO_LARGE)
        }
        priced = ms(kernel) is not None
        for taken, left in self._each(groups, places):
            found = [kernel.resized(*(self._channels(side, left) for side in (ins, outs))) if left else kernel]
            option = 0 if weight is None else taken[places.index(weight)]
            if weight is not None and option:  # channels on both sides stay then
                found = [one.in_numbers(kernel.numbers) for one in replacements[weight.name][option - 1].kernels]
            if any(taken[at] in going.get(place.name, ()) for at, place in enumerate(places)):
                found = []
            times = [ms(one) for one in found]
            amounts["ms"][taken] = sum(time or 0.0 for time in times)
            amounts[UNKNOWN][taken] = priced and None in times
            amounts["bytes"][taken] = sum(weight_bytes(one, entry) for one in found)
            amounts["macs"][taken] = sum(one.macs / samples for one in found)
            amounts["energy"][taken] = sum(energy_of(one, samples, entry) for one in found)
            amounts["layers"][taken] = sum(one.macs > 0 for one in found)
            amounts[TOO_LARGE][taken] = sum(entry * math.prod(one.weight) > largest for one in found)
        return Joint(tuple(choice.name for choice in places), amounts)

    def _around(self, node: str, weighty: Iterable[int]) -> tuple[list[tuple[int, Choice]], list[Choice]]:
        """Returns the groups with options, of these at a node, with their numbers; and these and the node's branch as places."""
        groups = [(at, choice) for at in weighty if (choice := self._groups[at]) is not None][:MOST_PLACES]
        places = [choice for _, choice in groups]
        holder = self._smallest(node)
        if holder and not any(choice.inside == holder for choice in places):
            places.append(self.choices[name_of(Place("branch", holder))])
        return groups, places

    def _each(
        self, groups: Sequence[tuple[int, Choice]], places: Sequence[Choice]
    ) -> Iterator[tuple[tuple[int, ...], dict[int, int]]]:
        """Yields the options that may be taken together where nothing has gone, with the units left of each group."""
        for taken in itertools.product(*(range(choice.count) for choice in places)):
            if not any(option == choice.gone for option, choice in zip(taken, places, strict=True)):
                yield (
                    taken,
                    {at: places[i].left(taken[i], self._found.groups[at].units) for i, (at, _) in enumerate(groups)},
                )

    def _outs(self, name: str) -> _Side:
        """Returns whose channels a node's output has."""
        if name not in self._nodes:
            return _Side({}, 0)
        axes = len(_shape_of(self._nodes[name]))
        return self._side(name, 1 if axes > LARGEST_FLAT else axes - 1)

    def _channels(self, side: _Side, left: Mapping[int, int]) -> int:
        return side.pinned + sum(
            copies * left.get(at, self._found.groups[at].units) for at, copies in side.copies.items()
        )

    def _side(self, name: str, axis: int) -> _Side:
        """Returns whose channels lie on an axis of a node's (first) output; of nodes that aren't there, none."""
        labels = self._found.labels.get(self._nodes[name]) if name in self._nodes else None
        axes = labels[0] if isinstance(labels, list) and labels else labels
        if not axes or axis >= len(axes) or axes[axis] is None:
            return _Side({}, 0)
        classes, counts = np.unique(self._found.class_of[axes[axis].ravel()], return_counts=True)
        number = dict(zip(classes.tolist(), counts.tolist(), strict=True))
        total, copies = int(counts.sum()), {}
        for at, group in enumerate(self._found.groups):
            each = [number[one] for one in group.classes.tolist() if one in number]
            if each and len(each) == group.units:
                copies[at] = each[0]
                total -= sum(each)
        return _Side(copies, total)

    def _smallest(self, node: str) -> str:
        """Returns the name of the smallest branch with which a node goes; "" if there is none."""
        holding = [name for name, nodes in self._inside.items() if node in nodes]
        return min(holding, key=lambda name: len(self._inside[name]), default="")

    def _holder(self, graph: Graph, place: Place) -> str:
        """Returns the name of the smallest branch that holds all layers of a group; "" if there is none."""
        group = next((one for one in self._found.groups if one.name == place.path), None)
        if group is None:
            return ""
        tensors = {id(graph.tensor(entry.tensor)) for entry in group.entries}
        fetched = {
            name
            for name, node in self._nodes.items()
            if node.op == "get_attr" and id(graph.tensor(str(node.target))) in tensors
        }
        holding = [name for name, nodes in self._inside.items() if fetched <= nodes]
        return min(holding, key=lambda name: len(self._inside[name]), default="")

    def _layers(self) -> dict[str, Choice]:
        """Returns the choices at weights by the names of the nodes that multiply by them."""
        paths = {choice.place.path: choice for choice in self.choices.values() if choice.place.kind == "weight"}
        found: dict[str, Choice] = {}
        for name, node in self._nodes.items():
            choice = paths.get(node.meta.get("module", ""))
            if choice is not None and node.target in MACS:
                found[name] = choice
        return found

    def _beside(self, node: str) -> list[str]:
        """Returns the names of the groups of channels on both sides of a node."""
        sides = [self._outs(one) for one in (node, self._nodes[node].all_input_nodes[0].name)]
        groups = [self._groups[at] for at in sorted({at for side in sides for at in side.copies})]
        return [group.name for group in groups if group is not None]

    def _imply(self) -> None:
        """Finds what goes with what: groups with branches, inner branches with outer ones, replaced layers with whole sides.

        A layer isn't replaced inside of a branch that has gone.
        """
        for name, choice in self._weights.items():
            for group in self._beside(name):
                self.implied += [((choice.name, option), (group, 0)) for option in range(1, len(choice.options))]
        for choice in self.choices.values():
            nodes = {node for node, one in self._weights.items() if one is choice}
            holding = [branch for branch, inside in self._inside.items() if nodes and nodes <= inside]
            for branch in (self.choices[name_of(Place("branch", one))] for one in holding):
                self.implied.append(((branch.name, branch.gone), (choice.name, 0)))
            if choice.inside:
                branch = self.choices[name_of(Place("branch", choice.inside))]
                here, there = (choice.name, choice.gone), (branch.name, branch.gone)
                self.implied += [(here, there), (there, here)]
        for (name, outer), (other, inner) in itertools.permutations(self._inside.items(), 2):
            if inner < outer:
                first, then = (self.choices[name_of(Place("branch", one))] for one in (name, other))
                self.implied.append(((first.name, first.gone), (then.name, then.gone)))


def at_step(step: int) -> str:
    """Returns the name of the bytes of activations that are alive at a step."""
    return f"bytes at step {step}"


def _shape_of(node: fx.Node) -> Sequence[Any]:
    """Returns the shape of a node's (first) output; () where there is none."""
    value = node.meta.get("val")
    first = value[0] if isinstance(value, list | tuple) and value else value
    return tuple(getattr(first, "shape", ()))


def energy_of(kernel: Kernel, samples: int = 1, entry: float | None = None) -> float:
    """Returns the estimated millijoules that a kernel takes for one of the samples that it works on at once.

    Args:
        kernel: the kernel.
        samples: how many samples it works on at once.
        entry: bytes of an entry of its weight; by default those of the numbers in which it computes.
    """
    if kernel.op in WITHIN_OTHERS:
        return 0.0
    read = sum(math.prod(shape) for shape in kernel.inputs)
    if kernel.op == "cat":  # of whose inputs a resized kernel doesn't know which became narrower
        read = kernel.elements
    number = NUMBER_BYTES.get(kernel.numbers, 4.0)
    values = (kernel.elements + read) * number / samples
    weights = weight_bytes(kernel, number if entry is None else entry)
    return MILLIJOULES * picojoules(kernel.numbers, kernel.macs / samples, values, weights)


def weight_bytes(kernel: Kernel, entry: float) -> float:
    """Returns the bytes of a kernel's weight and bias in a file, with so many bytes for an entry of the weight."""
    return math.prod(kernel.weight) * entry + BIAS_BYTES * kernel.weight[0] if kernel.weight else 0.0


def stored_entries(kernels: Mapping[str, Kernel], weights: Mapping[str, int]) -> dict[str, float]:
    """Returns the bytes of an entry of each kernel's weight, in steps of half a byte, by the node's name.

    Args:
        kernels: kernels by the names of their nodes.
        weights: bytes of what each node reads of parameters as they are stored, its bias among them.
    """
    found = {}
    for name, kernel in kernels.items():
        if kernel.weight and name in weights:
            own = max(1, weights[name] - BIAS_BYTES * kernel.weight[0])
            found[name] = math.ceil(2 * own / math.prod(kernel.weight)) / 2
    return found
