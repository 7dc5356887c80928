import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from penjing.graph import straight_through
from penjing.graph.straight_through import TWINS, ops, swap

RANGES = {torch.int8: (-128, 127), torch.uint8: (0, 255)}


@settings(max_examples=60, deadline=None)
@given(
    dtype=st.sampled_from(list(RANGES)),
    scale=st.floats(1e-4, 10.0),
    offset=st.integers(-20, 20),
    seed=st.integers(0, 2**16),
    spread=st.floats(0.01, 1000.0),
)
def test_twins_per_tensor_equal_the_plain_ops_bit_for_bit(dtype, scale, offset, seed, spread):
    low, high = RANGES[dtype]
    zero = (low + high) // 2 + offset
    x = torch.randn(64, generator=torch.Generator().manual_seed(seed)) * spread
    arguments = (scale, zero, low, high, dtype)
    plain = ops.quantize_per_tensor.default(x, *arguments)
    twin = straight_through.quantize_per_tensor(x, *arguments)
    assert torch.equal(twin, plain.float())
    real = ops.dequantize_per_tensor.default(plain, *arguments)
    assert torch.equal(straight_through.dequantize_per_tensor(twin, *arguments), real)


@settings(max_examples=60, deadline=None)
@given(axis=st.integers(0, 3), seed=st.integers(0, 2**16), spread=st.floats(0.01, 100.0), symmetric=st.booleans())
def test_twins_per_channel_equal_the_plain_ops_bit_for_bit(axis, seed, spread, symmetric):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(4, 3, 5, 2, generator=generator) * spread
    channels = x.shape[axis]
    scales = torch.rand(channels, generator=generator) + 1e-3
    zeros = torch.zeros(channels, dtype=torch.int64)
    if not symmetric:
        zeros = torch.randint(-9, 9, (channels,), generator=generator)
    arguments = (scales, zeros, axis, -127, 127, torch.int8)
    plain = ops.quantize_per_channel.default(x, *arguments)
    twin = straight_through.quantize_per_channel(x, *arguments)
    assert torch.equal(twin, plain.float())
    real = ops.dequantize_per_channel.default(plain, *arguments)
    assert torch.equal(straight_through.dequantize_per_channel(twin, *arguments), real)


def test_the_gradient_passes_where_nothing_was_clipped():
    x = torch.tensor([-5.0, -0.3, 0.2, 0.7, 9.0], requires_grad=True)
    arguments = (0.01, 0, -128, 127, torch.int8)
    q = straight_through.quantize_per_tensor(x, *arguments)
    straight_through.dequantize_per_tensor(q, *arguments).sum().backward()
    assert torch.allclose(x.grad, torch.tensor([0.0, 1.0, 1.0, 1.0, 0.0]))


@pytest.mark.parametrize("plain", TWINS)
def test_swapping_there_and_back_changes_nothing(plain):
    assert swap(plain, True) is TWINS[plain] and swap(TWINS[plain], False) is plain
    assert swap(plain, False) is plain and swap(TWINS[plain], True) is TWINS[plain]
    assert swap(torch.relu, True) is torch.relu
