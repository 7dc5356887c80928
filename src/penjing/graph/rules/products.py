"""Linear layers and products of matrices: the axis summed over is tied on both sides."""

from typing import Any

import torch

from penjing.graph.rules.elementwise import broadcast
from penjing.graph.rules.table import Axes, Labelling, Value, rule

aten = torch.ops.aten


@rule(aten.linear.default)
def linear(labelling: Labelling, x: Value, weight: Value, bias: Value | None) -> Axes:
    """Weight `(out_features, in_features)`."""
    labelling.tie(x.axes[-1], weight.axes[1])
    labelling.role(weight, 0, "out")
    labelling.role(weight, 1, "in")
    if bias is not None:
        labelling.tie(weight.axes[0], bias.axes[0])
        labelling.role(bias, 0, "shift")
    return (*x.axes[:-1], weight.axes[0])


@rule(aten.matmul.default, aten.mm.default, aten.bmm.default)
def product(labelling: Labelling, a: Value, b: Value) -> Axes:
    """`(…, n, k) @ (…, k, m)`, batch axes broadcast; either side may be a vector."""
    labelling.tie(a.axes[-1], b.axes[-2] if len(b.axes) > 1 else b.axes[0])
    if b.name is not None and len(b.axes) == 2:
        labelling.role(b, 0, "in")
        labelling.role(b, 1, "out")
    rows = (a.axes[-2],) if len(a.axes) > 1 else ()
    columns = (b.axes[-1],) if len(b.axes) > 1 else ()
    leading = [Value(value.axes[:-2], value.shape[:-2]) for value in (a, b) if len(value.axes) > 2]
    return (*(broadcast(labelling, *leading) if leading else ()), *rows, *columns)


@rule(aten.addmm.default, aten.baddbmm.default)
def product_and_sum(labelling: Labelling, c: Value, a: Value, b: Value, *_: Any) -> Axes:
    """`c + a @ b`."""
    axes = product(labelling, a, b)
    shape = (*a.shape[:-1], b.shape[-1])
    return broadcast(labelling, Value(axes, shape), c)


@rule(aten.embedding.default)
def embedding(labelling: Labelling, weight: Value, indices: Value, *_: Any) -> Axes:
    """Weight `(num_embeddings, embedding_dim)`; what an index means is outside the graph, so all rows stay."""
    labelling.pin(weight.axes[0])
    labelling.role(weight, 1, "out")
    return (*indices.axes, weight.axes[1])


@rule(aten.scaled_dot_product_attention.default)
def attention(labelling: Labelling, query: Value, key: Value, value: Value, mask: Value | None, *_: Any) -> Axes:
    """`(…, heads, length, features)`: queries and keys share features; the softmax runs over key positions."""
    labelling.tie(query.axes[-1], key.axes[-1])
    labelling.tie(key.axes[-2], value.axes[-2])
    heads = broadcast(labelling, *(Value(v.axes[:-2], v.shape[:-2]) for v in (query, key, value)))
    if mask is not None:
        for axis in mask.axes:
            labelling.pin(axis)
    return (*heads, query.axes[-2], value.axes[-1])
