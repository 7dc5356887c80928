"""A model whose code fixes its batch: the user is told where, and what to write instead."""

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import penjing as pj


class Model(nn.Module):
    def __init__(self, function: Callable[[Tensor, nn.Module], Tensor]) -> None:
        super().__init__()
        self.token, self.linear = nn.Parameter(torch.zeros(1, 8)), nn.Linear(8, 8)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.linear(x), self)


def by_len(x: Tensor, model: nn.Module) -> Tensor:
    return x + model.token.expand(len(x), 8)  # a length


def by_int(x: Tensor, model: nn.Module) -> Tensor:
    batch = int(x.shape[0])  # a number
    return x.view(batch, 4, 2)


def by_loop(x: Tensor, model: nn.Module) -> Tensor:
    return torch.stack([x[i] * 2 for i in range(x.shape[0])])  # a loop


def by_rows(x: Tensor, model: nn.Module) -> Tensor:
    return torch.stack([row * 2 for row in x])  # rows


def by_shape(x: Tensor, model: nn.Module) -> Tensor:
    return x.reshape(3, -1) * 1.5  # a shape


def by_constant(x: Tensor, model: nn.Module) -> Tensor:
    return x + torch.arange(3.0).reshape(3, 1)  # a constant


def by_branch(x: Tensor, model: nn.Module) -> Tensor:
    return x * 2 if x.shape[0] > 2 else x * 3  # a branch


@pytest.mark.parametrize(
    ("function", "comment"),
    [
        (by_len, "a length"),
        (by_int, "a number"),
        (by_loop, "a loop"),
        (by_rows, "rows"),
        (by_shape, "a shape"),
        (by_constant, "a constant"),
        (by_branch, "a branch"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_line_that_fixes_the_batch_is_named_with_what_to_write_instead(
    function: Callable[[Tensor, nn.Module], Tensor], comment: str
) -> None:
    with pytest.warns(UserWarning, match=r"batches of 3 alone.*fixed_by_code.py:\d+ .*x\.shape\[0\]") as said:
        graph = pj.capture(Model(function), torch.randn(3, 8))
    assert graph.batch == 3
    assert f"# {comment}" in str(said[0].message)
    assert said[0].filename == __file__


def test_a_free_batch_is_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pj.capture(Model(lambda x, _: x.reshape(x.shape[0], -1, 2)), torch.randn(1, 8)).batch is None
