"""How much a call computes, and what it needs beside its inputs and outputs, where that is more than a few times their size.

Counted are multiplications; ops that aren't here do a few operations for each element of their outputs or inputs. Recurrent
layers also take time for each step, however small.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from penjing.graph.cost import MACS

aten = torch.ops.aten
Shape = Callable[[fx.Node], tuple[int, ...]]
Count = Callable[[fx.Node, list[Any], Shape], int]

WORK: dict[Any, Count] = dict(MACS)
"""Multiplications of a call: those of `graph.cost`, and of ops that no cost is counted of."""

TEMPORARIES: dict[Any, Count] = {}
"""Elements that a kernel makes for itself."""

_PER_STEP = 2**16  # multiplications that take as long as the overhead of one step of a recurrent layer


def _add(table: dict[Any, Count], *targets: Any) -> Callable[[Count], Count]:
    def add(function: Count) -> Count:
        table.update(dict.fromkeys(targets, function))
        return function

    return add


@_add(WORK, aten.lstm.input, aten.gru.input, aten.rnn_tanh.input, aten.rnn_relu.input)
def _recurrent(node: fx.Node, args: list[Any], shape: Shape) -> int:
    sequence = shape(args[0])
    steps = sequence[1 if args[-1] and len(sequence) == 3 else 0]
    return MACS[node.target](node, args, shape) + _PER_STEP * steps * len(args[2])


@_add(
    WORK,
    *(getattr(aten, f"{kind}_pool{n}d{end}").default for kind in ("max", "avg") for n in (1, 2, 3) for end in ("",)),
    *(getattr(aten, f"max_pool{n}d_with_indices").default for n in (1, 2, 3)),
)
def _pooling(node: fx.Node, args: list[Any], shape: Shape) -> int:
    axes = int(str(node.target).partition("pool")[2][0])
    window = args[1] if isinstance(args[1], list) else [args[1]]
    sizes = [size if isinstance(size, int) else 2**16 for size in window]
    return math.prod(shape(node)) * (sizes[0] ** axes if len(sizes) == 1 else math.prod(sizes))


@_add(
    WORK,
    *(getattr(aten, f"adaptive_{kind}_pool{n}d").default for kind in ("max", "avg") for n in (1, 2, 3)),
)
def _adaptive_pooling(node: fx.Node, args: list[Any], shape: Shape) -> int:
    return math.prod(shape(args[0])) + 8 * math.prod(shape(node))  # windows overlap by one at each end


@_add(
    WORK,
    aten.mv.default,
    aten.dot.default,
    aten.vdot.default,
    aten.inner.default,
    aten.tensordot.default,
    aten.linalg_matmul.default,
    aten.linalg_vecdot.default,
    aten.addmv.default,
    aten.bilinear.default,
    aten.chain_matmul.default,
    aten.linalg_multi_dot.default,
    aten.addbmm.default,
)
def _products(node: fx.Node, args: list[Any], shape: Shape) -> int:
    """Of matrices M×K and K×N this is M·K·N, the root of the product of all three sizes; of others it is an upper bound."""
    operands = [given for given in node.all_input_nodes if given.meta.get("val") is not None]
    sizes = [math.prod(shape(given)) for given in operands] + [math.prod(shape(node))]
    return math.prod(sorted(sizes)[-2:]) if len(sizes) > 3 else math.isqrt(math.prod(sizes)) * max(1, min(sizes))


@_add(
    WORK,
    aten.inverse.default,
    aten.linalg_cholesky.default,
    aten.linalg_det.default,
    aten.linalg_inv.default,
    aten.linalg_matrix_exp.default,
    aten.linalg_matrix_power.default,
    aten.linalg_solve.default,
    aten.linalg_solve_triangular.default,
    aten.matrix_exp.default,
    aten.matrix_power.default,
    aten.linalg_norm.ord_str,
    aten.linalg_norm.default,
    aten.linalg_matrix_norm.default,
    aten.linalg_matrix_norm.str_ord,
)
def _decompositions(node: fx.Node, args: list[Any], shape: Shape) -> int:
    """Some passes of n³ over each matrix: a decomposition into singular values takes some 20."""
    return 32 * max(math.prod(size) * max(size[-2:], default=1) for size in map(shape, node.all_input_nodes))


@_add(WORK, aten.cdist.default)
def _distances(node: fx.Node, args: list[Any], shape: Shape) -> int:
    return math.prod(shape(node)) * shape(args[0])[-1] * 8


@_add(WORK, aten.isin.Tensor_Tensor)
def _membership(node: fx.Node, args: list[Any], shape: Shape) -> int:
    return _all_pairs(node, args, shape)


@_add(TEMPORARIES, aten.isin.Tensor_Tensor)
def _all_pairs(node: fx.Node, args: list[Any], shape: Shape) -> int:
    elements, tests = (math.prod(shape(given)) for given in args[:2])
    return elements * min(tests, 10 * int(elements**0.145) + 1) + tests  # beyond that many it sorts


@_add(TEMPORARIES, aten.scaled_dot_product_attention.default)
def _scores(node: fx.Node, args: list[Any], shape: Shape) -> int:
    """With some masks the kernel makes all scores."""
    *batch, queries, _ = shape(args[0])
    return math.prod(batch) * queries * shape(args[1])[-2]


@_add(TEMPORARIES, aten.einsum.default)
def _contraction(node: fx.Node, args: list[Any], shape: Shape) -> int:
    """With three operands and more, an inner result may be as large as all axes together."""
    return MACS[aten.einsum.default](node, args, shape) if len(node.all_input_nodes) > 2 else 0


@_add(TEMPORARIES, aten.chain_matmul.default, aten.linalg_multi_dot.default)
def _chain(node: fx.Node, args: list[Any], shape: Shape) -> int:
    shapes = [shape(given) for given in node.all_input_nodes]
    return max(size[0] if size else 1 for size in shapes) * max(size[-1] if size else 1 for size in shapes)


@_add(TEMPORARIES, aten.bilinear.default)
def _pairs_of_features(node: fx.Node, args: list[Any], shape: Shape) -> int:
    *batch, features = shape(args[0])
    return math.prod(batch) * features * shape(args[1])[-1]


@_add(TEMPORARIES, aten.im2col.default, aten.col2im.default, aten.kron.default)
def _unfolded(node: fx.Node, args: list[Any], shape: Shape) -> int:
    return max(math.prod(shape(given)) for given in (node, *node.all_input_nodes))


@_add(TEMPORARIES, aten.affine_grid_generator.default)
def _grid(node: fx.Node, args: list[Any], shape: Shape) -> int:
    return 2 * math.prod(shape(node))


@_add(
    TEMPORARIES, aten.cosine_similarity.default, aten.pairwise_distance.default, aten.cdist.default, aten.dist.default
)
def _broadcast(node: fx.Node, args: list[Any], shape: Shape) -> int:
    """The operands are broadcast to one another before they are reduced."""
    first, second = shape(args[0]), shape(args[1])
    return math.prod(shape(node)) * max([*first[-1:], *second[-1:], 1])
