"""The evidence that a criterion may use: the graph, its groups of channels, and passes over data, each made once."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from penjing.checks import COUNT, SEED, check
from penjing.data import Data
from penjing.errors import PenjingError
from penjing.evidence.memory import Found, fingerprint_of, memory_of
from penjing.evidence.reader import Inputs, seeded_batches
from penjing.graph import AxisEntry, Branch, Channels, Graph, Group
from penjing.graph.taps import Change, with_changes
from penjing.tasks import each_input, rows_of, sample_count


@dataclass(frozen=True)
class Evidence:
    """The graph and the data from which saliencies are computed.

    Attributes:
        graph: the graph to prune; criteria must not change it.
        groups: the graph's groups of removable units.
        data: the data on which the graph was trained, or None.
        batches: the number of batches in a pass over the data.
        seed: seed for criteria that draw random numbers.
        branches: the graph's residual branches, where branches are pruned.
        weights: names of the graph's weights, where single weights are pruned.
        channels: the graph's channels, to which the groups belong; they tell where in the graph the groups' units are.
        epochs: passes over the batches for criteria that train gates; None takes each criterion's default.
    """

    graph: Graph
    groups: tuple[Group, ...]
    data: Data | None
    batches: int
    seed: int
    branches: tuple[Branch, ...] = ()
    weights: tuple[str, ...] = ()
    channels: Channels | None = None
    epochs: int | None = None

    def __post_init__(self) -> None:
        """Checks the number of batches and the seed.

        Raises:
            PenjingError: there is no batch in a pass, or no generator accepts the seed.
        """
        check(vars(self), {"batches": COUNT, "seed": SEED})

    def gradients(self, names: Iterable[str] | None = None) -> Iterator[Callable[[str], Tensor | None]]:
        """Yields, for each batch, a function from a parameter's name to the gradient of the task's loss.

        The model runs in evaluation mode, on the training data, or else on labelled calibration data.

        Args:
            names: the parameters whose gradients are needed; fewer are cheaper. None takes all.

        Raises:
            PenjingError: there is no labelled data.
        """
        for model, loss in self.losses(names):
            value = loss()
            wanted = {id(one): one for one in model.parameters() if one.requires_grad}
            slopes = torch.autograd.grad(value, list(wanted.values()), allow_unused=True) if value.requires_grad else ()
            found = dict(zip(wanted, slopes, strict=bool(slopes)))
            yield lambda name, model=model, found=found: found.get(id(model.tensor(name)))  # type: ignore[misc]

    def losses(self, names: Iterable[str] | None = None) -> Iterator[tuple[Graph, Callable[[], Tensor]]]:
        """Yields, for each batch, a copy of the graph and a function that returns the copy's task loss, to be differentiated.

        Every batch comes with the same copy. Second derivatives are possible.

        Args:
            names: the parameters by which the loss is differentiated. None takes all.

        Raises:
            PenjingError: there is no labelled data.
        """
        model = self._derivable(names)
        for inputs, targets in self._labelled():
            yield model, lambda inputs=inputs, targets=targets: self._loss(model(*inputs), targets)  # type: ignore[misc]

    def responses(self, names: Iterable[str]) -> Iterator[tuple[Graph, list[Tensor], Callable[[list[Tensor]], Tensor]]]:
        """Yields, for each batch, a copy of the graph, its outputs, and the task's loss as a function of them.

        Args:
            names: the parameters by which the outputs are differentiated.

        Raises:
            PenjingError: there is no labelled data.
        """
        model = self._derivable(names)
        for inputs, targets in self._labelled():
            leaves, spec = pytree.tree_flatten(model(*inputs))
            free = [i for i, one in enumerate(leaves) if isinstance(one, Tensor) and one.requires_grad]

            def loss(outputs: list[Tensor], leaves=leaves, free=free, spec=spec, targets=targets) -> Tensor:  # type: ignore[no-untyped-def]
                filled = list(leaves)
                for position, output in zip(free, outputs, strict=True):
                    filled[position] = output
                return self._loss(pytree.tree_unflatten(filled, spec), targets)

            yield model, [leaves[i] for i in free], loss

    def slopes(
        self,
        nodes: Sequence[str],
        *,
        singly: bool = False,
        disturb: Callable[[Callable[[Inputs], Tensor], Inputs], Inputs] | None = None,
    ) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
        """Yields, for each batch, the values of these nodes and the gradients of the task's loss at them.

        Args:
            nodes: the names of the nodes.
            singly: whether each sample is a batch of its own.
            disturb: returns inputs to use instead, from the loss as a function of inputs and the batch's inputs.

        Raises:
            PenjingError: there is no labelled data.
        """
        tapped = self._derivable(None).with_outputs(nodes)  # a node behind frozen weights has no gradient
        for inputs, targets in self._samples() if singly else self._labelled():
            if disturb is not None:
                inputs = disturb(lambda x, targets=targets: self._loss(tapped(*x)[0], targets), inputs)  # type: ignore[misc]
            outputs, values = tapped(*inputs)
            slopes = torch.autograd.grad(self._loss(outputs, targets), list(values.values()), materialize_grads=True)
            yield {name: value.detach() for name, value in values.items()}, dict(zip(values, slopes, strict=True))

    def changed(self, changes: Mapping[str, Change], epochs: int) -> Iterator[Callable[[], Tensor]]:
        """Yields, for each batch of some epochs, a function that returns the task's loss with the values of nodes changed.

        The weights are frozen, so only the tensors in `changes` have gradients and can be trained.

        Args:
            changes: by node, a function from the node's value to the changed one.
            epochs: the number of passes over the batches, with the order and augmentation of training's epochs.

        Raises:
            PenjingError: there is no labelled data.
        """
        run = with_changes(copy.deepcopy(self.graph).eval().requires_grad_(False), changes)
        for epoch in range(epochs):
            for inputs, targets in self._labelled(epoch):
                yield lambda inputs=inputs, targets=targets: self._loss(run(*inputs), targets)  # type: ignore[misc]

    def values(self, nodes: Sequence[str]) -> Iterator[dict[str, Tensor]]:
        """Yields, for each batch of calibration (or else training) data, the values of these nodes.

        Raises:
            PenjingError: there are neither calibration nor training data.
        """
        part = self._first_part("calibration", "train")
        if part is None:
            raise PenjingError("This criterion needs data.calibration or data.train, and both are None.")
        tapped = copy.deepcopy(self.graph).eval().with_outputs(nodes)
        with torch.no_grad():
            for inputs, _ in self._batches(part):
                yield tapped(*inputs)[1]

    def values_beside(
        self, other: Graph, nodes: Sequence[str]
    ) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
        """Yields, for each batch that `values` reads, the values of these nodes in the graph and in another one.

        Only what comes before the nodes is computed.

        Args:
            other: a graph of the same inputs, with nodes of the same names.
            nodes: names of nodes.

        Raises:
            PenjingError: there are neither calibration nor training data.
        """
        part = self._first_part("calibration", "train")
        if part is None:
            raise PenjingError("This needs data.calibration or data.train, and both are None.")
        both = [_up_to(graph, nodes) for graph in (self.graph, other)]
        with torch.no_grad():
            for inputs, _ in self._batches(part):
                flat = self.graph.signature.flatten(inputs, {})
                one, another = (dict(zip(nodes, program(*flat), strict=True)) for program in both)
                yield one, another

    def judged(self, model: Graph) -> Iterator[Callable[[], Tensor]]:
        """Yields, for each batch of calibration (or else training) data, a function that returns a model's task loss.

        Raises:
            PenjingError: there is no labelled data.
        """
        for inputs, targets in self._labelled(calibration=True):
            yield lambda inputs=inputs, targets=targets: self._loss(model(*inputs), targets)  # type: ignore[misc]

    def gather(
        self,
        kind: str,
        about: Mapping[str, Any],
        names: Iterable[str],
        find: Callable[[list[str]], Mapping[str, Found]],
        *,
        across_processes: bool = True,
    ) -> Mapping[str, Found]:
        """Returns results of passes over the data, from the data's memory where they have one; see `Memory.gather`.

        Args:
            kind: see `Memory.gather`.
            about: all that the results depend on besides the graph, the data, the number of batches and the seed.
            names: the names of the results.
            find: computes the results that the memory doesn't hold.
            across_processes: see `Memory.gather`.
        """
        memory = memory_of(self.data)
        if memory is None:
            return find(list(names))
        read = {"graph": fingerprint_of(self.graph), "batches": self.batches, "seed": self.seed}
        return memory.gather(kind, read | dict(about), names, find, across_processes=across_processes)

    def _derivable(self, names: Iterable[str] | None) -> Graph:
        """Returns a copy of the graph in which exactly these parameters, or all, require gradients, even frozen ones."""
        model = copy.deepcopy(self.graph).eval()
        wanted = (
            {id(one) for one in model.parameters()} if names is None else {id(model.tensor(name)) for name in names}
        )
        for parameter in model.parameters():
            parameter.requires_grad_(id(parameter) in wanted)
        return model

    def _labelled(self, epoch: int = 0, calibration: bool = False) -> Iterator[tuple[Inputs, Any]]:
        if self.data is None or not self.data.task.labelled:
            raise PenjingError("This needs the task's loss or its gradients: pass labelled data with data=….")
        part = self._first_part(*(("calibration", "train") if calibration else ("train", "calibration")))
        if part is None:
            raise PenjingError("This criterion needs data.train or a labelled data.calibration, and both are None.")
        for inputs, targets in self._batches(part, epoch):
            if targets is None:
                raise PenjingError(f"This needs labels, and the batches of data.{part} hold none.")
            yield inputs, targets

    def _samples(self) -> Iterator[tuple[Inputs, Any]]:
        if self.graph.batch is not None:
            raise PenjingError(
                f"This criterion needs samples one by one, and the model takes {self.graph.batch} at a time only; "
                "use another criterion."
            )
        for inputs, targets in self._labelled():
            for row in range(sample_count(inputs)):
                yield each_input(inputs, itemgetter(slice(row, row + 1))), rows_of(targets, [row])

    def _first_part(self, *parts: str) -> str | None:
        """Returns the first of these parts that the data have."""
        return next((part for part in parts if getattr(self.data, part, None) is not None), None)

    def _batches(self, part: str, epoch: int = 0) -> Iterator[tuple[Inputs, Any]]:
        assert self.data is not None
        device = next(self.graph.parameters()).device
        return seeded_batches(self.data, part, self.batches, self.seed, device, epoch)

    def _loss(self, outputs: Any, targets: Any) -> Tensor:
        assert self.data is not None
        return self.data.task.loss(outputs, targets)

    def per_unit(self, values: Tensor, entry: AxisEntry) -> Tensor:
        """Sums values of a tensor's entries over the entries of each unit.

        Args:
            values: values in the shape of the tensor `entry.tensor`.
            entry: the indices of the units in this tensor.

        Returns:
            Tensor `(units,)` on the CPU, where scores of all groups are compared.
        """
        along = values.transpose(0, entry.axis).flatten(1).sum(1) if values.dim() > 1 else values
        return along.cpu()[torch.from_numpy(entry.indices)].sum(1)

    def of_units(self, values: Tensor, entry: AxisEntry) -> Tensor:
        """Returns values of a tensor's entries by unit, `(units, entries of one unit)`, on the CPU."""
        rows = values.movedim(entry.axis, 0).flatten(1) if values.dim() > 1 else values[:, None]
        return rows.cpu()[torch.from_numpy(entry.indices)].flatten(1)


def _up_to(graph: Graph, nodes: Sequence[str]) -> fx.GraphModule:
    """Returns a program that computes these nodes from the flat inputs, and nothing behind them."""
    program = copy.deepcopy(graph).eval().with_outputs(nodes).program
    output = program.graph.output_node()
    values = output.args[0]
    output.args = (tuple(values[len(values) - len(nodes) :]),)  # type: ignore[index, arg-type]
    program.graph.eliminate_dead_code(is_impure_node=lambda node: node.op in ("placeholder", "output"))
    program.recompile()
    return program
