import contextlib
import json
import os
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from compact_mutations import HEAD, Sections, mutate, sealed, sections
from torch import nn

from penjing.errors import PenjingError
from penjing.graph import Graph, Option, Place, Plan, capture, load
from penjing.graph.straight_through import ops
from penjing.storage.compact import _coder as coder
from penjing.storage.compact import decode, encode
from penjing.storage.compact._bytes import ByteReader, pack, varint

FLOAT32, BOOL, INT8 = 0, 4, 6  # numbers of dtypes in a header
PLAIN, SCALED, MASK = range(3)


class Small(nn.Module):
    """A pruned layer of shared weights, a quantised one and a float one."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(24, 40), nn.Linear(40, 16), nn.Linear(16, 3)
        table = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 0.25, -0.5, 1.0])
        self.a.weight.data = table[torch.randint(8, (40, 24))] * (torch.rand(24) > 0.5)
        self.register_buffer("scale", self.b.weight.detach().abs().amax(1) / 7)
        self.register_buffer("zero", torch.zeros(16, dtype=torch.int64))

    def forward(self, x):
        grid = (self.scale, self.zero, 0, -7, 7, torch.int8)
        w = ops.dequantize_per_channel(ops.quantize_per_channel(self.b.weight, *grid), *grid)
        return self.c(nn.functional.linear(self.a(x).relu(), w, self.b.bias).relu())


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> bytes:
    torch.manual_seed(0)
    graph = capture(Small(), torch.randn(2, 24)).rounded()
    graph.masks["a.weight"] = (graph.tensor("a.weight") != 0) | (torch.rand(40, 24) > 0.95)
    graph.plan = Plan((Option(Place("weight", "a"), "prune", {}),))
    path = tmp_path_factory.mktemp("compact") / "m.penjing"
    graph.save(path, compact=True)
    kinds = {header[0] for header in headers(path.read_bytes())}
    assert kinds == {PLAIN, SCALED, MASK}  # else the tests below reach less than they say
    return path.read_bytes()


def headers(content: bytes) -> list[tuple[int, int, list[int]]]:
    parts = sections(content)
    description = json.loads(parts.text)["graph"]
    side = ByteReader(parts.side)
    found = []
    for _ in range(len(description["tensors"]) + len(description["masks"])):
        kind, dtype, axes = side.byte(), side.byte(), side.byte()
        found.append((kind, dtype, [side.varint() for _ in range(axes)]))
    return found


def forbid(content: bytes, message: str | None, tmp_path: Path, **options) -> None:
    (tmp_path / "m.penjing").write_bytes(content)
    with pytest.raises(PenjingError, match=message):
        load(tmp_path / "m.penjing", **options)


def one(shape: list[int], side: bytes, *, dtype=FLOAT32, kind=PLAIN, blob=b"", words=b"") -> bytes:
    """A file with one tensor `t`, written by hand."""
    description = {"nodes": [], "tensors": [{"name": "t"}], "ties": {}, "masks": []}
    header = bytes([kind, dtype, len(shape)]) + b"".join(varint(n) for n in shape)
    text = json.dumps({"graph": description, "plan": []}).encode()
    return Sections(1, text, header + side, blob, words).build()


def refuse(content: bytes, message: str | None, **options) -> None:
    with pytest.raises(PenjingError, match=message):
        decode(content, **options)


@contextlib.contextmanager
def traced() -> Iterator[Callable[[], int]]:
    """Gives a function that returns the peak of memory inside the block, as far as Python and NumPy ask for it."""
    tracemalloc.start()
    peak = 0
    try:
        yield lambda: peak
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()


# Damage


def test_damaged_cut_and_longer_files_are_refused(whole, tmp_path):
    for at in range(HEAD, len(whole), 37):
        changed = bytearray(whole)
        changed[at] ^= 0x10
        forbid(bytes(changed), "checksum", tmp_path)
    for end in range(len(whole)):
        if end % 41 == 0:
            forbid(whole[:end], None, tmp_path)
    forbid(whole + b"\0", "checksum", tmp_path)
    forbid(sealed(whole[HEAD:] + b"\1\2\3\4"), "damaged", tmp_path)


def test_another_version_is_refused(whole, tmp_path):
    for version in (0, 2, 255):
        forbid(sealed(whole[HEAD:], version), f"version {version}", tmp_path)


def test_a_file_sent_as_text_is_no_compact_file(whole, tmp_path):
    forbid(whole.replace(b"\r\n", b"\n"), "it was cut short, or is no .penjing file", tmp_path)


# Sizes


def test_tensors_beyond_the_bound_are_refused_before_anything_is_made(tmp_path):
    huge = bytes([3, 0, 0, 0, 0, 1, 1, 0])  # all zero but nowhere: the flags would take next to nothing
    for shape in ([2**40], [2**20, 2**20], [2**62, 2**62], [300, 2**20]):
        content = one(shape, huge)
        with traced() as peak:
            refuse(content, "bytes of memory")
        assert peak() < 2**20


def test_the_bound_is_what_the_caller_says():
    content = encode(
        {"nodes": [], "tensors": [{"name": "t"}], "ties": {}, "masks": []}, {"t": torch.zeros(1000, 1000)}, []
    )
    assert len(content) < 150
    needed = 1000 * 1000 * (4 + 16)
    refuse(content, f"largest={needed}", largest=needed - 1)
    assert decode(content, largest=needed)[1]["t"].shape == (1000, 1000)


@pytest.mark.parametrize("form", ["dense", "few", "sparse", "pruned", "wide", "scaled", "mask"])
def test_decoding_takes_no_more_than_the_bound_counts(form):
    random = np.random.default_rng(0)
    n = 600
    values = random.standard_normal((n, n)).astype(np.float32)
    pruned = np.where(random.random((n, n)) < 0.3, values, 0).astype(np.float32)
    nodes = []
    tensors = {
        "dense": {"t": values},
        "few": {"t": np.round(values)},
        "sparse": {"t": pruned},
        "pruned": {"t": np.round(4 * pruned)},
        "wide": {"t": values.astype(np.float64)},
        "scaled": {"t": (np.round(values * 20) * np.float32(0.05)).astype(np.float32)},
        "mask": {"t": pruned, "mask/t": (pruned != 0) | (random.random((n, n)) < 0.5)},
    }[form]
    if form == "scaled":
        nodes = [
            {"op": "get_attr", "name": "w", "target": "t"},
            {
                "op": "call_function",
                "name": "q",
                "target": "quantized_decomposed.quantize_per_tensor.default",
                "args": [{"node": "w"}, 0.05000000074505806, 0, -127, 127, {"dtype": "int8"}],
            },
        ]
    description = {"nodes": nodes, "tensors": [{"name": "t"}], "ties": {}, "masks": ["t"] if form == "mask" else []}
    content = encode(description, {name: torch.from_numpy(array) for name, array in tensors.items()}, [])
    needed = sum(array.nbytes for array in tensors.values()) + 16 * n * n
    decode(content, largest=needed)
    with traced() as peak:
        restored = decode(content, largest=needed)[1]
    assert peak() < needed + 3 * len(content) + 2**18
    assert all(np.array_equal(restored[name].numpy(), array) for name, array in tensors.items())


def test_packed_bytes_never_unpack_to_more_than_they_must():
    bomb = pack(bytes(2**24))
    assert len(bomb) < 2**15
    for size in (0, 1, 2**24 - 1, 2**24 + 1):
        with pytest.raises(PenjingError, match="damaged"):
            ByteReader(bomb).unpack(size)
    assert ByteReader(bomb).unpack(2**24) == bytes(2**24)


def test_a_description_that_claims_too_much_is_refused(whole, tmp_path):
    parts = sections(whole)
    forbid(sealed(varint(2**24 + 1) + pack(parts.text) + whole[HEAD:]), "larger than 16777216", tmp_path)
    forbid(parts.build(claimed=2**60), "larger than 16777216", tmp_path)


# Contents that make no sense


def frequencies(bits: int, *less_one: int) -> bytes:
    return bytes([bits]) + b"".join(map(varint, less_one))


RAW = pack(np.zeros(6, np.float32).tobytes())
TWO = pack(np.array([1, 1], np.uint32).tobytes())
WORDS = np.array([7, 9], np.uint32).tobytes()
NONSENSE = {
    "an unknown kind": (one([6], b"\0", blob=RAW, kind=3), "header"),
    "an unknown dtype": (one([6], b"\0", blob=RAW, dtype=99), "header"),
    "too many axes": (one([1] * 65, b"\0", blob=RAW), "header"),
    "an unknown form": (one([6], b"\4", blob=RAW), "form 4"),
    "values missing": (one([7], b"\0", blob=RAW), "damaged"),
    "values left over": (one([5], b"\0", blob=RAW), "damaged"),
    "blob left over": (one([6], b"\0", blob=RAW + b"\0"), "after its end"),
    "side left over": (one([6], b"\0\0", blob=RAW), "after its end"),
    "words left over": (one([6], b"\0", blob=RAW, words=WORDS), "coded values"),
    "half a word": (one([6], b"\0", blob=RAW, words=WORDS[:-1]), "coded values"),
    "a zero word at the end": (one([6], b"\0", blob=RAW, words=WORDS + bytes(4)), "coded values"),
    "an unknown packing": (one([6], b"\0", blob=b"\3" + RAW[1:]), "unknown way 3"),
    "no table": (one([6], b"\2\0", blob=TWO), "table of 0"),
    "a table larger than the array": (one([6], b"\2\7", blob=TWO), "table of 7"),
    "a table beyond the largest": (one([9000], b"\2" + varint(4097), blob=TWO), "table of 4097"),
    "no bits": (one([6], b"\2\2" + frequencies(0, 0), blob=TWO, words=WORDS), "frequencies"),
    "too many bits": (one([6], b"\2\2" + frequencies(17, 9), blob=TWO, words=WORDS), "frequencies"),
    "frequencies beyond one": (one([6], b"\2\2" + frequencies(3, 7), blob=TWO, words=WORDS), "frequencies"),
    "a huge frequency": (one([6], b"\2\2" + frequencies(3, 2**62), blob=TWO, words=WORDS), "frequencies"),
    "fewer slots than symbols": (
        one([6], b"\2\5" + frequencies(2, 0, 0, 0, 0), blob=pack(bytes(20)), words=WORDS),
        "frequencies",
    ),
    "no classes": (one([6], b"\1\0\0\0\0\0\1\0"), "classes"),
    "too many classes": (one([40, 9000], b"\1\0\0\0\0\x11\1"), "classes"),
    "classes for few values": (one([6, 6], b"\1\0\0\0\0\2\2"), "classes"),
    "a probability above one": (one([6], b"\1\0\0\0\0\1\1" + varint(2**14 + 1)), "classes"),
    "a huge probability": (one([6], b"\1\0\0\0\0\1\1" + varint(2**63 - 1)), "classes"),
    "a truth value of two": (one([2], b"\0", dtype=BOOL, blob=pack(b"\1\2")), "truth value"),
    "a mask of floats": (one([6], b"\0", kind=MASK), "header"),
    "a mask of itself": (one([6], b"\0", kind=MASK, dtype=BOOL), "mask"),
    "a mask of nothing": (one([6], b"\5", kind=MASK, dtype=BOOL), "mask"),
    "scaled integers": (one([6], b"\1\0\0\0" + bytes(8) + b"\0", kind=SCALED, dtype=INT8), "header"),
    "an unknown width": (one([6], b"\3\0\0\0" + bytes(8) + b"\0", kind=SCALED), "grid"),
    "no such axis": (one([6], b"\1\2\0\0" + bytes(8) + b"\0", kind=SCALED), "grid"),
    "groups that don't divide": (one([6], b"\1\0\4\0" + bytes(8) + b"\0", kind=SCALED), "grid"),
    "a huge group": (one([6], b"\1\0" + varint(2**62) + b"\0" + bytes(8) + b"\0", kind=SCALED), "grid"),
    "its own scale": (one([6], b"\1\0\0\1\0\0\0", kind=SCALED), "grid"),
    "a number that never ends": (one([6], b"\2" + b"\xff" * 12, blob=RAW), "never ends"),
    "an early end": (one([6], b""), "too early"),
}


@pytest.mark.parametrize("what", NONSENSE)
def test_contents_that_make_no_sense_are_refused(what):
    content, message = NONSENSE[what]
    refuse(content, message)


def test_descriptions_that_make_no_sense_are_refused(whole, tmp_path):
    parts = sections(whole)
    for text in (b"", b"[]", b"{}", b'{"graph": 1, "plan": []}', b'{"graph": {}, "plan": []}', b"\xff", b"[" * 10**5):
        forbid(replace(parts, text=text).build(), None, tmp_path)
    described = json.loads(parts.text)
    for change in (
        lambda d: d["graph"].update(penjing=2),
        lambda d: d.update(plan=[1]),
        lambda d: d["graph"]["tensors"].append(d["graph"]["tensors"][0]),
        lambda d: d["graph"]["tensors"].pop(),
        lambda d: d["graph"].update(masks=["nothing"]),
        lambda d: d["graph"].update(ties={"a.weight": "b.weight"}),
    ):
        changed = json.loads(json.dumps(described))
        change(changed)
        forbid(replace(parts, text=json.dumps(changed).encode()).build(), None, tmp_path)


def test_frequencies_that_sum_to_something_else_never_reach_the_coder():
    for wrong in ([2**24], [0, 2**24], [2**23, 2**23 - 1], [-1, 2**24 + 1], []):
        with pytest.raises((PenjingError, ValueError)):
            coder.Source(ByteReader(b""), ByteReader(b""), coder.coder_of(memoryview(WORDS))).receive(
                3, np.array(wrong, np.int64)
            )


# Fuzzing


@pytest.mark.parametrize("seed", range(8))
def test_changed_files_are_refused_or_harmless(whole, tmp_path, seed):
    """benchmarks/file_fuzz.py does the same for 100,000 files, in processes with bounded memory and time."""
    random = Random(seed)
    path = tmp_path / "m.penjing"
    refused = 0
    for _ in range(250):
        path.write_bytes(mutate(whole, random))
        try:
            assert isinstance(load(path, largest=2**22), Graph)
        except PenjingError as error:
            assert str(error)
            refused += 1
    assert os.listdir(tmp_path) == ["m.penjing"]
    assert 100 < refused < 250  # most are refused, and some reach the graph
