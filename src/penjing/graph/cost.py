"""What a graph costs: MACs, parameters, bytes of weights and of activations, per node and summed, at batch 1.

Where the model fixes its batch, MACs and activations are one sample's share, so that numbers of all graphs compare. One
small function per family of ops that multiply matrices; ops that act on entries one by one, norms and resampling count as
free of MACs, as in the literature. An op of which neither is known is never taken for free: its row says that it isn't
counted.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from penjing.graph.channels.rules import RULES
from penjing.graph.energy import millijoules
from penjing.graph.memory import Lifetime, bytes_of, largest, lifetimes, peak, tensors
from penjing.graph.ops import CONVOLUTIONS, RECURRENT, TRANSPOSED_CONVOLUTIONS, node_arguments
from penjing.graph.propagation import at_batch_one, depends_on_values, sizes
from penjing.graph.traffic import NOTHING, Traffic, traffic
from penjing.lines import html_table

if TYPE_CHECKING:
    from penjing.graph.graph import Graph

aten = torch.ops.aten
Shape = Callable[[Any], tuple[int, ...]]
MACS: dict[Any, Callable[[fx.Node, list[Any], Shape], int]] = {}


@dataclass(frozen=True)
class Row:
    """The cost of one node at batch 1.

    Attributes:
        node: the node's name.
        module: path of the user's module that it came from.
        op: the ATen op, without namespace and overload.
        macs: multiply-accumulates.
        params: entries of the parameters that it reads first (a tied parameter is counted once).
        weight_bytes: bytes of these parameters and of the buffers that it reads first.
        activation_bytes: bytes of its output.
        output_shape: shape of its (first) output; of the whole batch where the model fixes that.
        counted: whether it is known how often the op multiplies; `macs` is 0 where it isn't.
        traffic: the bytes that it reads and writes.
    """

    node: str
    module: str
    op: str
    macs: int
    params: int
    weight_bytes: int
    activation_bytes: int
    output_shape: tuple[int, ...]
    counted: bool = True
    traffic: Traffic = NOTHING


@dataclass(frozen=True, repr=False)
class Cost:
    """Costs of a graph at batch 1.

    Attributes:
        rows: one per op, in order of execution.
        macs: sum of the rows'.
        params: number of parameter entries, tied ones once, unused ones included.
        weight_bytes: bytes of parameters and buffers.
        peak_activation_bytes: most bytes of activations alive at once when ops run one by one in the graph's order
            and views cost nothing. A value that is rounded to a grid takes its bytes on this grid, as in a runtime that
            computes in integers.
        largest_tensor_bytes: bytes of the largest activation or weight, each on the grid to which it is rounded.
        lifetimes: the activations, with the steps at which they are alive; `peak_activation_bytes` follows from them.
    """

    rows: tuple[Row, ...]
    macs: int
    params: int
    weight_bytes: int
    peak_activation_bytes: int
    largest_tensor_bytes: int
    lifetimes: tuple[Lifetime, ...]

    def __repr__(self) -> str:
        return (
            f"Cost: {self.params:,} parameters in {self.weight_bytes:,} bytes, {self.macs:,} MACs in {self.layers} layers, "
            f"{self.peak_activation_bytes:,} bytes of activations at once"
        )

    def _repr_html_(self) -> str:
        rows = [
            (row.module or row.node, row.op, f"{row.macs:,}" if row.counted else "unknown", f"{row.params:,}",
             "×".join(map(str, row.output_shape)))
            for row in self.rows
            if row.macs or row.params or not row.counted
        ]  # fmt: skip
        return html_table(repr(self), ("Layer", "Op", "MACs", "Parameters", "Output"), rows)

    def energy_mj(self, batch: int = 1) -> float:
        """Returns an estimate of the millijoules of a call with `batch` samples; see `penjing.graph.energy`."""
        return millijoules(self.rows, batch)

    @property
    def layers(self) -> int:
        """The number of ops that multiply: convolutions, linear layers, recurrent layers, matrix products."""
        return sum(row.macs > 0 for row in self.rows)

    @property
    def by_limit(self) -> dict[str, float]:
        """The costs that a budget can limit, by the limits' names."""
        return {
            "macs": self.macs,
            "peak_memory": self.peak_activation_bytes,
            "largest_tensor": self.largest_tensor_bytes,
            "layers": self.layers,
            "energy": self.energy_mj(),
        }

    @property
    def uncounted(self) -> tuple[Row, ...]:
        """The rows of ops of which it isn't known how often they multiply: `macs` leaves them out, or counts a size that
        depends on the inputs' values as 1.
        """
        return tuple(row for row in self.rows if not row.counted)


def macs_of(*targets: Any) -> Callable[[Callable[[fx.Node, list[Any], Shape], int]], Any]:
    """Registers the decorated function as the MAC count of these ops."""

    def add(function: Callable[[fx.Node, list[Any], Shape], int]) -> Any:
        MACS.update(dict.fromkeys(targets, function))
        return function

    return add


@macs_of(*CONVOLUTIONS)
def _convolution(node: fx.Node, args: list[Any], shape: Shape) -> int:
    return math.prod(shape(node)) * math.prod(shape(args[1])[1:])


@macs_of(*TRANSPOSED_CONVOLUTIONS)
def _transposed(node: fx.Node, args: list[Any], shape: Shape) -> int:
    return math.prod(shape(args[0])) * math.prod(shape(args[1])[1:])


@macs_of(aten.convolution.default)
def _general(node: fx.Node, args: list[Any], shape: Shape) -> int:
    return (_transposed if args[6] else _convolution)(node, args, shape)


@macs_of(aten.linear.default)
def _linear(node: fx.Node, args: list[Any], shape: Shape) -> int:
    return math.prod(shape(node)) * shape(args[1])[-1]


@macs_of(
    aten.matmul.default,
    aten.mm.default,
    aten.bmm.default,
    aten.mv.default,
    aten.dot.default,
    aten.vdot.default,
    aten.inner.default,
)
def _product(node: fx.Node, args: list[Any], shape: Shape) -> int:
    return math.prod(shape(node)) * shape(args[0])[-1]


@macs_of(aten.addmm.default, aten.baddbmm.default, aten.addmv.default)
def _product_and_sum(node: fx.Node, args: list[Any], shape: Shape) -> int:
    return math.prod(shape(node)) * shape(args[1])[-1]


@macs_of(aten.addbmm.default)
def _sum_of_products(node: fx.Node, args: list[Any], shape: Shape) -> int:
    return math.prod(shape(args[1])) * shape(args[2])[-1]


@macs_of(aten.outer.default, aten.ger.default, aten.addr.default, aten.kron.default)
def _each_with_each(node: fx.Node, args: list[Any], shape: Shape) -> int:
    return math.prod(shape(node))


@macs_of(aten.tensordot.default)
def _tensordot(node: fx.Node, args: list[Any], shape: Shape) -> int:
    return math.prod(shape(node)) * math.prod(shape(args[0])[axis] for axis in args[2])


@macs_of(aten.bilinear.default)
def _bilinear(node: fx.Node, args: list[Any], shape: Shape) -> int:
    """Weight `(out_features, first_features, second_features)`; a product of three numbers counts once, as in `einsum`."""
    return math.prod(shape(node)) * math.prod(shape(args[2])[1:])


@macs_of(aten.cdist.default)
def _distances(node: fx.Node, args: list[Any], shape: Shape) -> int:
    return math.prod(shape(node)) * shape(args[0])[-1]


@macs_of(aten.scaled_dot_product_attention.default)
def _attention(node: fx.Node, args: list[Any], shape: Shape) -> int:
    *batch, queries, features = shape(args[0])
    keys, values = shape(args[1])[-2], shape(args[2])[-1]
    return math.prod(batch) * queries * keys * (features + values)


@macs_of(aten.einsum.default)
def _einsum(node: fx.Node, args: list[Any], shape: Shape) -> int:
    terms = args[0].replace(" ", "").split("->")[0].split(",")
    if len(terms) < 2:
        return 0
    size: dict[Any, int] = {}
    for term, x in zip(terms, args[1], strict=True):
        for axis, n in zip(_axes(term, len(shape(x))), shape(x), strict=True):
            size[axis] = max(n, size.get(axis, 1))  # axes of size 1 are broadcast
    return math.prod(size.values())


def _axes(term: str, count: int) -> list[Any]:
    """Names the axes of one operand of an einsum; those behind "..." by their position from its right end."""
    first, dots, last = term.partition("...")
    unnamed = count - len(first) - len(last) if dots else 0
    return [*first, *range(unnamed, 0, -1), *last]


@macs_of(aten.embedding_bag.padding_idx, aten.embedding_bag.default)
def _embedding_bag(node: fx.Node, args: list[Any], shape: Shape) -> int:
    weight, rows, _, _, _, _, weights = args[:7]
    return 0 if weights is None else math.prod(shape(rows)) * shape(weight)[1]


@macs_of(*RECURRENT)
def _recurrent(node: fx.Node, args: list[Any], shape: Shape) -> int:
    steps = math.prod(shape(args[0])[:-1])  # those of all sequences
    return steps * sum(math.prod(shape(weight)) for weight in args[2] if len(shape(weight)) == 2)


def count(graph: "Graph") -> Cost:
    """Returns the cost of `graph`; see `Cost`."""
    number = at_batch_one(graph)
    batched = _batched(graph)

    def shape(node: fx.Node) -> tuple[int, ...]:
        return sizes(node, number)

    seen: set[int] = set()
    rows = []
    for node in graph.program.graph.nodes:
        if node.op != "call_function" or bytes_of(node, number) is None:
            continue
        read = [graph.tensor(str(n.target)) for n in node.all_input_nodes if n.op == "get_attr"]
        fresh = [tensor for tensor in read if id(tensor) not in seen]
        seen.update(map(id, fresh))
        counter = MACS.get(node.target)
        samples = batched.get(node, 1)
        rows.append(
            Row(
                node.name,
                node.meta.get("module", ""),
                op_name(node),
                math.ceil(counter(node, node_arguments(node), shape) / samples) if counter else 0,
                sum(t.numel() for t in fresh if isinstance(t, torch.nn.Parameter)),
                sum(t.numel() * t.element_size() for t in fresh),
                math.ceil((bytes_of(node, number) or 0) / samples),
                tuple(number(n) for n in _first(node.meta["val"]).shape),
                _known(node),
                traffic(graph, node, number, batched),
            )
        )
    alive = tuple(lifetimes(graph, number, batched))
    owned = {id(t): t for t in [*graph.parameters(), *graph.buffers()]}.values()
    return Cost(
        tuple(rows),
        sum(row.macs for row in rows),
        sum(t.numel() for t in graph.parameters()),
        sum(t.numel() * t.element_size() for t in owned),
        peak(alive),
        largest(graph, number, batched),
        alive,
    )


_MOVES = """
arange argsort broadcast_tensors broadcast_to bucketize bincount column_stack complex concat concatenate
cosine_similarity cummax cummin diag diag_embed diagonal diff dstack eye hstack imag index_add
index_copy index_fill index_put index_reduce isin kthvalue linspace masked_scatter masked_select median meshgrid mode
msort multinomial narrow nonzero numpy_T pairwise_distance
one_hot poisson quantile rand randint randn randperm ravel real replication_pad3d rot90 scalar_tensor scatter scatter_add
scatter_reduce searchsorted slice_copy squeeze_copy swapaxes take take_along_dim tensor_split tile tril_indices
triu_indices unsafe_chunk unsafe_split view_as_complex view_as_real vstack
"""
"""Ops without a rule for channels that move, pick or make entries, or act on them one by one as norms do."""

FREE_OF_MACS = frozenset(_MOVES.split())


def _known(node: fx.Node) -> bool:
    """Tells whether the op's MACs are known: they are counted, or it is among those that count as free of them.

    Who wrote a rule for one of PyTorch's ops knew what it does, so whatever has one and is not in `MACS` is free of MACs.
    Of a user's own op only `macs_of` tells. Nothing is known of an op that multiplies as many values as the inputs' values say.
    """
    target = node.target
    if target in MACS and any(
        depends_on_values(v) for n in (node, *node.all_input_nodes) for v in tensors(n.meta.get("val"))
    ):
        return False
    if target in MACS or not isinstance(target, torch._ops.OpOverload) or target.namespace == "quantized_decomposed":
        return True
    if target.namespace == "aten" and (target in RULES or op_name(node) in FREE_OF_MACS):
        return True
    made, read = tensors(node.meta["val"]), [v for n in node.all_input_nodes for v in tensors(n.meta.get("val"))]
    counts_only = not any(v.is_floating_point() or v.is_complex() for v in made)  # places, masks and numbers of them
    return counts_only or not read


def uncounted(rows: Sequence[Row]) -> str:
    """Says in a sentence which ops a number of MACs leaves out."""
    ops: dict[str, list[str]] = {}
    for row in rows:
        ops.setdefault(row.op, []).append(row.module or row.node)
    named = [
        f"{op} in {', '.join(places[:2])}{f' and {len(places) - 2} more' if len(places) > 2 else ''}"
        for op, places in ops.items()
    ]
    return f"MACs leave out, since Penjing can't count how often they multiply: {'; '.join(named)}."


def _batched(graph: "Graph") -> dict[fx.Node, int]:
    """Returns, for each node that works on inputs, how many samples its size is that of: the batch if that is fixed."""
    samples = graph.batch or 1
    found: dict[fx.Node, int] = {}
    for node in graph.program.graph.nodes:
        if node.op == "placeholder" or any(source in found for source in node.all_input_nodes):
            found[node] = samples
    return found


def op_name(node: fx.Node) -> str:
    """Returns an op's short name: "conv2d" for `aten.conv2d.default`."""
    schema = getattr(node.target, "_schema", None)
    return schema.name.partition("::")[2] if schema else getattr(node.target, "__name__", str(node.target))


def _first(value: Any) -> Tensor:
    return tensors(value)[0]
