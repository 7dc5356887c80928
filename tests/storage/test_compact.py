import base64
import copy
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_storage import Everything
from torch import nn

import penjing as pj
from penjing.errors import PenjingError
from penjing.graph import Graph, Option, Place, capture, load
from penjing.graph.straight_through import ops
from penjing.models import load_model
from penjing.storage.compact import decode, encode
from penjing.storage.compact._bytes import ByteReader
from penjing.storage.compact._coder import Coded, Source, code_symbols, coder_of, decode_symbols, words_of
from penjing.storage.compact._flags import code_flags

DTYPES = [
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.uint16,
    torch.uint32,
    torch.uint64,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.complex64,
]


def described(tensors, masks=()):
    return {"nodes": [], "tensors": [{"name": n} for n in tensors], "ties": {}, "masks": list(masks)}


def round_trip(tensors, masks=None):
    masks = masks or {}
    content = encode(described(tensors, masks), tensors | {f"mask/{n}": m for n, m in masks.items()}, [])
    return content, decode(content)[1]


def bits(tensor):
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and bits(a) == bits(b)


def of_bytes(content: np.ndarray, dtype, shape):
    if dtype == torch.bool:
        content = content & 1
    return torch.frombuffer(bytearray(content.tobytes()) or bytearray(8), dtype=dtype, count=math.prod(shape) or 1)[
        : math.prod(shape)
    ].reshape(shape)


# Tensors


@st.composite
def tensors(draw):
    """Any bit patterns of any dtype and shape: dense, of few values, mostly one value, with empty rows and columns."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = tuple(draw(st.lists(st.integers(0, 24), max_size=3)))
    count, width = math.prod(shape), dtype.itemsize
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    values = random.integers(0, 256, (draw(st.sampled_from([1, 2, 7, 300, 5000])), width), dtype=np.uint8)
    content = values[random.integers(0, len(values), count)]
    if draw(st.booleans()):
        content[random.random(count) < draw(st.floats(0, 1))] = draw(st.sampled_from([0, 128]))
    if count and len(shape) > 1 and draw(st.booleans()):
        rows = content.reshape(shape[0], -1, width)
        rows[random.random(shape[0]) < 0.5] = 0
        rows[:, random.random(rows.shape[1]) < 0.5] = 0
    return of_bytes(content.reshape(-1), dtype, shape)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(tensors(), max_size=4), st.integers(0, 2**32))
def test_tensors_come_back_bit_for_bit_and_masks_with_them(given_tensors, seed):
    torch.manual_seed(seed)
    named = {f"t{i}": t for i, t in enumerate(given_tensors)}
    masks = {name: torch.rand(t.shape) > 0.5 for name, t in named.items()}
    for name, tensor in named.items():
        if tensor.dtype == torch.float32 and seed % 2:
            named[name] = tensor.masked_fill(~masks[name], 0)
    _, restored = round_trip(named, masks)
    assert list(restored) == [*named, *(f"mask/{n}" for n in named)]
    assert all(same(tensor, restored[name]) for name, tensor in named.items())
    assert all(same(mask, restored[f"mask/{name}"]) for name, mask in masks.items())


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_comes_back_as_scalar_empty_and_large(dtype):
    random = np.random.default_rng(0)
    for shape in ((), (0,), (3, 0, 2), (7, 300)):
        tensor = of_bytes(random.integers(0, 256, math.prod(shape) * dtype.itemsize, dtype=np.uint8), dtype, shape)
        assert same(tensor, round_trip({"t": tensor})[1]["t"])


def test_signs_of_zero_infinities_and_payloads_of_nan_come_back():
    odd = torch.tensor([0, -(2**31), 0x7F800000, -0x800000, 0x7FC00001, 0x7F800001, 1], dtype=torch.int32).view(
        torch.float32
    )
    for tensor in (odd, odd.repeat(5000), torch.cat([torch.zeros(90_000), odd])):
        assert same(tensor, round_trip({"t": tensor})[1]["t"])


def test_a_dtype_without_a_place_is_named():
    with pytest.raises(PenjingError, match="'t' has the dtype"):
        round_trip({"t": torch.zeros(2, dtype=torch.complex128)})


def test_restored_tensors_can_be_written():
    restored = round_trip({"a": torch.zeros(50, 50), "b": torch.randn(9), "c": torch.arange(3)})[1]
    for tensor in restored.values():
        tensor += 1


# The coder


def reference(words: bytes, messages):
    """Decodes with Python's integers alone what docs/compact-format.md describes."""
    stack = [int(w) for w in np.frombuffer(words, "<u4")]
    state = 0
    for _ in range(2):
        state = state << 32 | stack.pop() if stack else state
    decoded = []
    for count, frequencies in messages:
        lefts = [0]
        for frequency in frequencies:
            lefts.append(lefts[-1] + int(frequency))
        symbols = []
        for _ in range(count):
            slot = state % 2**24
            symbol = next(s for s in range(len(frequencies)) if slot < lefts[s + 1])
            state = (state >> 24) * int(frequencies[symbol]) + slot - lefts[symbol]
            if state < 2**32 and stack:
                state = state << 32 | stack.pop()
            symbols.append(symbol)
        decoded.append(symbols)
    return decoded, state, stack


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(2, 60), st.integers(1, 300), st.floats(0, 12)), max_size=4), st.integers(0, 2**32)
)
def test_coded_words_decode_with_integers_alone(alphabets, seed):
    random = np.random.default_rng(seed)
    coded = Coded()
    for size, count, skew in alphabets:
        shares = random.random(size) ** skew
        drawn = random.choice(size, count, p=shares / shares.sum())
        symbols = np.concatenate([np.arange(size), drawn])
        coded.append(code_symbols(symbols, size))
    decoded, state, left = reference(words_of(coded), [(len(s), f) for s, f in coded.messages])
    assert decoded == [list(s) for s, _ in coded.messages]
    assert state == 0 and not left


def test_symbols_take_their_entropy():
    random = np.random.default_rng(0)
    shares = np.array([0.9, 0.05, 0.02, 0.01, 0.01, 0.005, 0.004, 0.001])
    symbols = random.choice(8, 200_000, p=shares)
    counts = np.bincount(symbols)
    entropy = -(counts * np.log2(counts / counts.sum())).sum() / 8
    coded = code_symbols(symbols, 8)
    words = words_of(coded)
    assert entropy <= len(words) <= 1.001 * entropy + 8
    assert coded.bits / 8 == pytest.approx(len(words), abs=9)
    source = Source(ByteReader(bytes(coded.side)), ByteReader(b""), coder_of(memoryview(words)))
    assert (decode_symbols(source, len(symbols), 8) == symbols).all()
    source.finish()


def test_empty_columns_and_rows_cost_next_to_nothing():
    random = np.random.default_rng(0)
    flags = np.zeros((300, 784), bool)
    live = np.ix_(random.permutation(300)[:100], random.permutation(784)[:200])
    flags[live] = random.random((100, 200)) < 0.1
    inside = 20_000 * (-0.1 * math.log2(0.1) - 0.9 * math.log2(0.9)) / 8
    over_all = flags.mean()
    uniform = flags.size * (-over_all * math.log2(over_all) - (1 - over_all) * math.log2(1 - over_all)) / 8
    maps = (300 + 784) / 8  # a bit for each row and column says whether it is empty
    size = code_flags(flags.reshape(-1), (300, 784)).size
    assert size < 1.05 * (inside + maps) < 0.8 * uniform


# Sizes


def sparse(model: nn.Module, left: dict[str, int], centroids: int = 31) -> nn.Module:
    """Leaves so many weights, at random places, of 5-bit codebooks that are used evenly: the hardest case for a coder."""
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        nn.init.normal_(parameter)
        if name in left:
            weights = torch.zeros(parameter.numel())
            table = torch.randn(centroids)
            weights[torch.randperm(len(weights))[: left[name]]] = table[torch.randint(centroids, (left[name],))]
            parameter.data = weights.view_as(parameter)
    return model


@pytest.mark.parametrize(
    ("name", "left", "ratio"),
    [
        ("lenet300", {"fc1.weight": 3200, "fc2.weight": 1100, "fc3.weight": 130}, 100),
        ("lenet5", {"conv1.weight": 100, "conv2.weight": 540, "fc1.weight": 800, "fc2.weight": 100}, 250),
    ],
)
def test_pruned_and_shared_weights_of_lenets_shrink_with_everything_counted(name, left, ratio, tmp_path):
    graph = capture(sparse(getattr(pj.zoo, name)(), left), torch.randn(2, 1, 28, 28))
    for weight in left:
        graph.masks[weight] = graph.tensor(weight) != 0
    graph.plan += [Option(Place("weight", weight), "prune", {"left": n}) for weight, n in left.items()]
    graph.save(tmp_path / "m.penjing", compact=True)
    weights = sum(math.prod(graph.tensor(weight).shape) for weight in left)
    assert (tmp_path / "m.penjing").stat().st_size * ratio < 4 * weights
    restored = load(tmp_path / "m.penjing")
    assert all(same(tensor, restored.tensor(n)) for n, tensor in graph.tensors().items())
    assert all(same(mask, restored.masks[n]) for n, mask in graph.masks.items())


def test_a_mask_that_repeats_the_zeros_of_its_tensor_is_free():
    torch.manual_seed(0)
    mask = torch.rand(200, 200) > 0.9
    tensor = torch.randn(200, 200).masked_fill(~mask, 0)
    alone, both = round_trip({"t": tensor})[0], round_trip({"t": tensor}, {"t": mask})[0]
    assert len(both) - len(alone) < 40
    mask[0, :20] = True  # a few zeros that are kept
    tensor[0, :20] = 0
    content, restored = round_trip({"t": tensor}, {"t": mask})
    assert same(mask, restored["mask/t"]) and len(content) - len(alone) < 100


def test_noise_takes_no_more_than_itself():
    random = np.random.default_rng(0)
    noise = of_bytes(random.integers(0, 256, 400_000, dtype=np.uint8), torch.float32, (100, 1000))
    assert len(round_trip({"t": noise})[0]) < 400_000 + 200


# Weights behind quantisers


class Quantized(nn.Module):
    """A layer for each grain: channel, group and tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.channel, self.group, self.tensor = nn.Linear(64, 48), nn.Linear(48, 64), nn.Linear(64, 10)
        self.register_buffer("channel_scale", self.channel.weight.detach().abs().amax(1) / 127)
        self.register_buffer("channel_zero", torch.zeros(48, dtype=torch.int64))
        self.register_buffer("group_scale", self.group.weight.detach().view(64, 3, 16).abs().amax(2) / 7)
        self.register_buffer("group_zero", torch.ones(64, 3, dtype=torch.int64))

    def forward(self, x):
        grid = (self.channel_scale, self.channel_zero, 0, -127, 127, torch.int8)
        w = ops.dequantize_per_channel(ops.quantize_per_channel(self.channel.weight, *grid), *grid)
        x = nn.functional.linear(x, w, self.channel.bias).relu()
        grid = (self.group_scale, self.group_zero, -8, 7, torch.int8, 16)
        w = ops.quantize_per_channel_group(self.group.weight, *grid)
        w = ops.dequantize_per_channel_group(w, *grid, torch.float32)
        x = nn.functional.linear(x, w, self.group.bias).relu()
        grid = (0.0113, 3, -128, 127, torch.int8)
        w = ops.dequantize_per_tensor(ops.quantize_per_tensor(self.tensor.weight, *grid), *grid)
        return nn.functional.linear(x, w, self.tensor.bias)


@pytest.fixture(scope="module")
def quantized():
    torch.manual_seed(0)
    return capture(Quantized(), torch.randn(2, 64))


def saved(graph: Graph, path, compact=True) -> int:
    graph.save(path, compact=compact)
    restored = load(path)
    assert all(same(tensor, restored.tensor(name)) for name, tensor in graph.tensors().items())
    return path.stat().st_size


def test_rounded_weights_behind_quantisers_are_stored_as_integers(quantized, tmp_path):
    rounded = quantized.rounded()
    whole = saved(rounded, tmp_path / "m.penjing")
    few = {"group": 48 * 64 / 2, "channel": 64 * 48, "tensor": 640}
    floats = 4 * (48 + 64 + 10 + 48 + 192)  # biases and scales
    assert whole < sum(few.values()) + floats + 1500
    assert whole < saved(rounded, tmp_path / "plain.penjing", compact=False) / 3


def test_weights_that_hold_more_than_their_integers_come_back_as_they_were(quantized, tmp_path):
    assert saved(quantized, tmp_path / "m.penjing") > 1.8 * saved(quantized.rounded(), tmp_path / "r.penjing")


def test_integers_come_back_from_a_graph_in_training(quantized, tmp_path):
    rounded = quantized.rounded().train()
    assert saved(rounded, tmp_path / "m.penjing") == saved(quantized.rounded(), tmp_path / "r.penjing")


def test_a_broken_scale_only_costs_bytes(quantized, tmp_path):
    broken = copy.deepcopy(quantized)
    with torch.no_grad():
        broken.tensor("channel_scale")[3] = float("nan")
        broken.tensor("group_scale").zero_()
    saved(broken, tmp_path / "m.penjing")


# Graphs


@pytest.fixture(scope="module")
def everything():
    torch.manual_seed(0)
    graph = capture(Everything(), torch.randn(2, 3, 6, 6), kwargs={"scale": 2.0})
    graph.masks["conv.weight"] = torch.rand(8, 3, 3, 3) > 0.5
    graph.plan += [Option(Place("group", "conv"), "prune", {"keep": 8})]
    return graph


def test_a_compact_file_gives_what_a_plain_one_gives(everything, tmp_path):
    everything.save(tmp_path / "plain.penjing")
    everything.save(tmp_path / "compact.penjing", compact=True)
    plain, small = load(tmp_path / "plain.penjing"), load(tmp_path / "compact.penjing")
    assert list(small.state_dict()) == list(plain.state_dict())
    assert all(same(tensor, small.tensor(name)) for name, tensor in plain.tensors().items())
    assert {n: p.requires_grad for n, p in small.named_parameters()} == {
        n: p.requires_grad for n, p in plain.named_parameters()
    }
    assert same(small.masks["conv.weight"], plain.masks["conv.weight"])
    for name in ("plan", "name", "batch", "lost_in_training", "inputs", "out_spec", "part"):
        assert getattr(small, name) == getattr(plain, name)
    assert small.ties() == plain.ties() and small.transient() == plain.transient() and small.cost() == plain.cost()
    small.save(tmp_path / "again.penjing", compact=True)
    assert (tmp_path / "again.penjing").read_bytes() == (tmp_path / "compact.penjing").read_bytes()


def test_commands_take_a_compact_file(everything, tmp_path):
    everything.save(tmp_path / "m.penjing", compact=True)
    loaded = load_model(str(tmp_path / "m.penjing"))
    graph = loaded.model
    assert list(graph.state_dict()) == list(everything.state_dict())


def test_a_file_that_cannot_be_written_is_an_error(everything, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PenjingError, match="can't be written"):
        everything.save(tmp_path / "file" / "m.penjing", compact=True)


# Written by the first release of format version 1, which every later one must read.
FIRST = (
    "k5EcO4GJ0oMZmk0+zA1(1D#YsZsRZv{0q-U;54^<V~;^#ur}kURVA%Nwdfl8dr2v=okNOlPZmcb&XANf!5A@|VLw42_hQ@#`)vab"
    "-w5{bhyG@AY|ugj&&a(HUADFX>l1gzbsW*Sa_VqwAeqr2=SZ3_1?u(7IamP>%L**v367U$g2D8xXD<>#@X4_8PUM7ST*wTP)yIM2"
    "9U|x7DV3a8r)8_#ip_M!pdwGrPM8CKY6K_ik#|qBKYYp&BhC)3>_>E?vfHLD{{NM<kan61sx2>>YcbWhw8szk@?G0~kQvV`n?49I"
    "5_iZPC1#8g3D$0AjzFol?DeCrClPw{L)Hd?mf>^k%UavC$UGZN--}!szm!-SStNqRp3dIt1Xe0_62BI)#u3JwMvvBZr|f#2{aOW?"
    "+@^9j1D!D2mF85YuyS1TS7;f>Jy=?EdE~ZzWH*w{KQpV$Z>(PHe&}HP$bnqJ+VJ9Gj%M*0xhgJ_#rx&>vk3`Hsz^TGUGCMr4HyMu"
    "{T(@G61x8XG~B{KF_|PexFV|(=8O5?In<S*n{!OB<rke@9ZO2CFO$9^7F~H#z5o;f5@TRsVq#`sU}R!q0W%mF85sZ?0S;qeKn4v!"
    "Y|pTdfx!U)00;m80001hKED"
)


def test_files_of_version_1_are_read(tmp_path):
    (tmp_path / "m.penjing").write_bytes(base64.b85decode(FIRST))
    graph = load(tmp_path / "m.penjing")
    expected = json.loads('{"0.weight": [[0.5, 0, -0.25], [0, 0, 2.0]], "0.bias": [0.125, -1.0]}')
    assert {name: tensor.tolist() for name, tensor in graph.tensors().items()} == expected
    assert graph.masks["0.weight"].tolist() == [[True, False, True], [False, False, True]]
    assert graph(torch.tensor([[1.0, 2.0, 4.0]])).tolist() == [[0.0, 7.0]]
