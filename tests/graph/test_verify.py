import math

import pytest
import torch

from penjing.graph.capture.verify import close

INF, NAN = math.inf, math.nan


@pytest.mark.parametrize(
    ("actual", "expected", "same"),
    [
        ([1.0, 1000.5], [1.4, 1000.0], True),
        ([1.0, 1002.0], [1.0, 1000.0], False),
        ([1.0, -INF], [1.0, -INF], True),
        ([1.0, -INF], [1.0, INF], False),
        ([1.0, NAN], [1.0, NAN], True),
        ([1.0, NAN], [1.0, INF], False),
        ([1.0, 5.0], [1.0, INF], False),
        ([1 + 1j], [1 + 1.0001j], True),
        ([1 + 1j], [1 + 1.1j], False),
        ([1, 2], [1, 2], True),
        ([1000, 1000], [1000, 1001], False),
    ],
)
def test_values_are_close_relative_to_the_largest_and_what_is_not_finite_is_the_same(actual, expected, same):
    assert close(torch.tensor(actual), torch.tensor(expected), 1e-3) is same


def test_other_shapes_are_never_close():
    assert not close(torch.zeros(2, 1), torch.zeros(2), 1e-3)
