"""Arguments of convolutions axis by axis: what is padded by hand gives what PyTorch's convolution gives."""

import pytest
import torch
from torch.nn import functional as F

from penjing.evidence.windows import each, padding


def test_one_number_counts_for_all_axes_and_several_for_each():
    assert each(3, 2) == [3, 3] and each((2,), 3) == [2, 2, 2] and each([1, 4], 2) == [1, 4]


@pytest.mark.parametrize("given", [0, 2, (1, 3), "same", "valid"])
@pytest.mark.parametrize("kernel", [(3, 4), (2, 5)])
@pytest.mark.parametrize("dilation", [1, 2])
def test_padding_by_hand_is_the_convolutions_padding(given, kernel, dilation):
    x, weight = torch.randn(1, 2, 12, 15), torch.randn(3, 2, *kernel)
    expected = F.conv2d(x, weight, padding=given, dilation=dilation)
    by_hand = F.conv2d(F.pad(x, padding(given, kernel, [dilation, dilation])), weight, dilation=dilation)
    torch.testing.assert_close(by_hand, expected)
