"""Attention as one op: queries and keys share features, keys and values share positions, all three share heads."""

from typing import Any

import numpy as np
import torch
from torch import fx

from penjing.graph.channels.rules.elementwise import broadcast
from penjing.graph.channels.rules.table import Axes, Axis, Labelling, Resizing, Value, fixed, resize, rule, set_argument
from penjing.graph.ops import node_arguments

aten = torch.ops.aten


@rule(aten.scaled_dot_product_attention.default, tiled=True)
def attention(labelling: Labelling, query: Value, key: Value, value: Value, mask: Value | None, *options: Any) -> Axes:
    """`(…, heads, length, features)`; the mask broadcasts to `(…, heads, query length, key length)`."""
    labelling.tie(query.axes[-1], key.axes[-1])
    labelling.tie(key.axes[-2], value.axes[-2])
    gqa = options[-1]
    leading = [_leading(labelling, v, query.shape[-3] if gqa else None) for v in (query, key, value)]
    heads = broadcast(labelling, *leading)
    if mask is not None:
        shape = (*leading[0].shape, query.shape[-2], key.shape[-2])
        broadcast(labelling, Value((*heads, query.axes[-2], key.axes[-2]), shape), mask)
    return (*heads, query.axes[-2], value.axes[-1])


def _leading(labelling: Labelling, value: Value, heads: int | None) -> Value:
    """Ties the axes for batch and heads; a key head that serves several query heads is repeated once for each of them."""
    axes, shape = value.axes[:-2], value.shape[:-2]
    if heads is None or shape[-1] == heads:
        return Value(axes, shape)
    last: Axis = axes[-1]
    if not fixed(heads):
        labelling.pin(last)
        last = None
    last = np.repeat(last, heads // shape[-1]) if last is not None else None
    return Value((*axes[:-1], last), (*shape[:-1], heads))


@resize(aten.scaled_dot_product_attention.default)
def resize_attention(resizing: Resizing, node: fx.Node) -> None:
    """Keeps the scale with which the model was trained, although the op would compute another from fewer features."""
    query, *_, scale, _ = node_arguments(node)
    count, features = resizing.count(query, -1), query.meta["val"].shape[-1]
    if scale is None and count is not None and count != features:
        set_argument(node, "scale", int(features) ** -0.5)
