"""Linear layers and products of matrices: the axes of both sides over which the op sums are tied."""

from typing import Any

import torch

from penjing.graph.channels.rules.elementwise import broadcast
from penjing.graph.channels.rules.table import Axes, Labelling, Value, pinned, rule

aten = torch.ops.aten


@rule(aten.linear.default, tiled=True)
def linear(labelling: Labelling, x: Value, weight: Value, bias: Value | None) -> Axes:
    """Weight `(out_features, in_features)`."""
    labelling.tie(x.axes[-1], weight.axes[1])
    labelling.role(weight, 0, "out")
    labelling.role(weight, 1, "in")
    if bias is not None:
        labelling.tie(weight.axes[0], bias.axes[0])
        labelling.role(bias, 0, "shift")
    return (*x.axes[:-1], weight.axes[0])


@rule(aten.matmul.default, aten.mm.default, aten.bmm.default, tiled=True)
def product(labelling: Labelling, a: Value, b: Value) -> Axes:
    """`(…, n, k) @ (…, k, m)`, batch axes broadcast; either side may be a vector."""
    labelling.tie(a.axes[-1], b.axes[-2] if len(b.axes) > 1 else b.axes[0])
    if b.constant and not a.constant and len(b.axes) > 1:
        labelling.role(b, -2 % len(b.axes), "in")
        labelling.role(b, -1 % len(b.axes), "out")
    if a.constant and not b.constant and len(a.axes) > 1:
        labelling.role(a, -1 % len(a.axes), "in")
        labelling.role(a, -2 % len(a.axes), "out")
    if b.constant and len(b.axes) == 1 and not labelling.owned(b.axes[0]):  # the bins of an expectation
        labelling.role(b, 0, "in")
    rows = (a.axes[-2],) if len(a.axes) > 1 else ()
    columns = (b.axes[-1],) if len(b.axes) > 1 else ()
    leading = [Value(value.axes[:-2], value.shape[:-2]) for value in (a, b) if len(value.axes) > 2]
    return (*(broadcast(labelling, *leading) if leading else ()), *rows, *columns)


@rule(aten.addmm.default, aten.baddbmm.default, tiled=True)
def product_and_sum(labelling: Labelling, c: Value, a: Value, b: Value, *_: Any) -> Axes:
    """`c + a @ b`."""
    axes = product(labelling, a, b)
    shape = (*a.shape[:-1], b.shape[-1])
    return broadcast(labelling, Value(axes, shape), c)


@rule(aten.embedding.default)
def embedding(labelling: Labelling, weight: Value, indices: Value, *_: Any) -> Axes:
    """Weight `(num_embeddings, embedding_dim)`; all rows stay, since the meaning of an index lies outside of the graph."""
    labelling.pin(weight.axes[0])
    labelling.role(weight, 1, "out")
    return (*indices.axes, weight.axes[1])


@rule(aten.embedding_bag.padding_idx, aten.embedding_bag.default)
def embedding_bag(labelling: Labelling, weight: Value, *read: Any) -> list[Axes]:
    """Sums, means or maxima of the rows of each bag, by feature; a row's position tells its bag.

    The first of the four outputs holds the bags; for maxima, the last one holds the row from which each feature came.
    """
    pinned(labelling, (weight.axes[0], *(axis for value in read if isinstance(value, Value) for axis in value.axes)))
    labelling.role(weight, 1, "out")
    shapes = [labelling.output(i) for i in range(4)]
    return [
        (*(None,) * (len(shape) - 1), weight.axes[1] if shape[1:] == weight.shape[1:] else None) if shape else ()
        for shape in shapes
    ]


@rule(aten.einsum.default, tiled=True)
def einsum(labelling: Labelling, equation: str, tensors: list[Value], *_: Any) -> Axes:
    """Ties axes with the same letter; the output has the axes whose letters stand in the result."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    words = [_letters(word, len(v.axes)) for word, v in zip(left.split(","), tensors, strict=True)]
    everything = [letter for word in words for letter in word]
    broadcasted = sorted({letter for letter in everything if letter.isdigit()}, reverse=True)
    alone = [letter for letter in sorted(set(everything)) if everything.count(letter) == 1 and not letter.isdigit()]
    result = [*broadcasted, *alone]
    if arrow:
        result = [one for letter in right.replace("...", ".") for one in (broadcasted if letter == "." else [letter])]
    merged = {}
    for letter in set(everything):
        operands = [
            Value((v.axes[i],), (v.shape[i],))
            for word, v in zip(words, tensors, strict=True)
            for i, other in enumerate(word)
            if other == letter
        ]
        (merged[letter],) = broadcast(labelling, *operands)
    for word, value in zip(words, tensors, strict=True):
        for i, letter in enumerate(word):
            if value.constant and everything.count(letter) == 1 and letter in result:
                labelling.role(value, i, "out")
            elif value.constant and everything.count(letter) > 1 and letter not in result:
                labelling.role(value, i, "in")
    return tuple(merged[letter] for letter in result)


def _letters(word: str, rank: int) -> list[str]:
    """Returns one letter per axis; the axes of "..." are numbered from the last, as they broadcast."""
    if "..." not in word:
        return list(word)
    before, behind = word.split("...")
    count = rank - len(before) - len(behind)
    return [*before, *(str(count - 1 - i) for i in range(count)), *behind]
