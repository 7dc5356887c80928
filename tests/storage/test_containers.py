"""Damage to the containers of a file, and of what else is read: whatever bytes are wrong, one kind of error says so."""

import json
import struct
import zipfile
from random import Random

import pytest
import torch
from made_files import X, call, pack, write
from safetensors.torch import save

import penjing as pj
from penjing import records
from penjing.damage import DAMAGE, refusing
from penjing.graph import load
from penjing.models import load_model
from penjing.run.workspace import Workspace, read_json


@pytest.fixture
def file(tmp_path):
    tensors = {"w": torch.randn(3, 3), "keep": torch.tensor([True, False, True])}
    nodes = [
        call("aten.matmul.default", X, {"node": "w"}, name="z"),
        call("aten.where.ScalarOther", {"node": "keep"}, {"node": "z"}, 0),
    ]
    return write(tmp_path / "m.penjing", *nodes, tensors=tensors)


def refused(path, why=""):
    with pytest.raises(pj.PenjingError, match=f"m.penjing .*{why}"):
        load(path)


def test_a_flipped_bit_anywhere_is_refused_in_one_way_or_changes_nothing(file):
    whole, x = file.read_bytes(), torch.randn(2, 3)
    expected, flips = load(file)(x), Random(0)
    damaged = 0
    for position in range(0, len(whole), 5):
        changed = bytearray(whole)
        changed[position] ^= 1 << flips.randrange(8)
        file.write_bytes(changed)
        try:
            assert torch.equal(load(file)(x)[0], expected[0])
        except pj.PenjingError:
            damaged += 1
    assert damaged > len(whole) / 5 / 2


def test_a_cut_file_is_refused(file):
    whole = file.read_bytes()
    for length in range(0, len(whole), 97):
        file.write_bytes(whole[:length])
        refused(file)


def members(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def damaged_header(path, **changes):
    """Rewrites fields of the central record of `graph.json`: (offset, format, value)."""
    content = bytearray(path.read_bytes())
    start = content.index(b"PK\1\2")
    for offset, form, value in changes.values():
        struct.pack_into(form, content, start + offset, value)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"flags": (8, "<H", 1)}, "encrypted"),
        ({"method": (10, "<H", 14)}, "never uses"),  # LZMA: its header may ask for gigabytes
        ({"method": (10, "<H", 99)}, "never uses"),
        ({"unpacked": (24, "<L", 2**31)}, "larger than"),
        ({"unpacked": (24, "<L", 3)}, "another size|CRC"),
        ({"packed": (20, "<L", 2**31)}, "larger than the file"),
        ({"place": (42, "<L", 7)}, ""),
        ({"version": (6, "<H", 99)}, ""),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else value,
)
def test_a_record_of_the_zip_that_lies_is_refused(file, changes, why):
    damaged_header(file, **changes)
    refused(file, why)


def test_members_that_share_bytes_are_refused(file):
    content = bytearray(file.read_bytes())
    records = [place for place in range(len(content)) if content[place : place + 4] == b"PK\1\2"]
    struct.pack_into("<L", content, records[1] + 42, struct.unpack_from("<L", content, records[0] + 42)[0])
    file.write_bytes(content)
    refused(file, "overlap|has|differ")


def test_a_member_is_never_unpacked_beyond_what_it_claims(file, monkeypatch):
    """Its record says three bytes, it would unpack to 30 MB: a reader that unpacks first takes them all."""
    content = members(file)
    pack(file, b" " * 30_000_000, content["weights.safetensors"])
    damaged_header(file, unpacked=(24, "<L", 3))
    asked = []
    original = zipfile.ZipExtFile.read
    monkeypatch.setattr(zipfile.ZipExtFile, "read", lambda self, n=-1: asked.append(n) or original(self, n))
    refused(file)
    assert asked and all(0 <= n <= 3 for n in asked)


def test_json_of_many_values_is_refused_before_it_is_parsed(file, monkeypatch):
    content = members(file)
    monkeypatch.setattr(records, "MOST_VALUES", 1000)
    pack(file, json.dumps([[]] * 600).encode(), content["weights.safetensors"])
    refused(file, "more than 1,000 values")


@pytest.mark.parametrize("depth", [500, 100_000])
def test_nesting_without_end_is_refused(file, depth):
    content = members(file)
    pack(file, b'{"penjing":1,"nodes":' + b"[" * depth + b"]" * depth + b"}", content["weights.safetensors"])
    refused(file)


@pytest.mark.parametrize(
    "weights",
    [
        b"",
        struct.pack("<Q", 2**60) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 9) + b'{"a":"\xff"}',
        struct.pack("<Q", 60) + b'{"w":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4]}}'[:60],
        save({"w": torch.zeros(2), "keep": torch.zeros(3, dtype=torch.bool)})[:-1],
    ],
    ids=["empty", "long header", "a list", "no text", "cut header", "cut values"],
)
def test_damaged_tensors_are_refused(file, weights):
    pack(file, members(file)["graph.json"], weights)
    refused(file)


def test_truth_values_that_are_neither_are_refused(file):
    """Kernels that count or look up by a truth value trust that it is 0 or 1."""
    content = members(file)
    values = content["weights.safetensors"].replace(b"\1\0\1", b"\1\0\7")
    assert values != content["weights.safetensors"]
    refused(pack(file, content["graph.json"], values), "neither true nor false")


@pytest.mark.parametrize("error", DAMAGE, ids=lambda error: error.__name__)
def test_all_that_readers_raise_becomes_one_kind_of_error_with_its_first_line(error):
    with pytest.raises(pj.PenjingError, match=r"^out/a\.bin is damaged: \w+"), refusing("out/a.bin is damaged"):
        raise error("something\nwith details") if error is not UnicodeError else ValueError("x")


def test_a_mistake_of_ours_is_not_taken_for_damage():
    with pytest.raises(pj.PenjingError, match="as it was"), refusing("damaged"):
        raise pj.PenjingError("as it was")
    with pytest.raises(KeyboardInterrupt), refusing("damaged"):
        raise KeyboardInterrupt


@pytest.mark.parametrize("content", [b"", b"\0" * 64, struct.pack("<Q", 2**50) + b"{}", struct.pack("<Q", 3) + b"{]}"])
def test_damaged_weights_for_a_model_are_refused(tmp_path, content):
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(pj.PenjingError, match=r"w\.safetensors can't be read as safetensors"):
        load_model("zoo:lenet300", weights=tmp_path / "w.safetensors")


def test_a_stage_whose_file_has_a_flipped_bit_is_done_again(tmp_path, file):
    """As in a run's folder: its graph and its plain numbers."""
    said = []
    space = Workspace(tmp_path / "out", {"a": 1}, said.append)
    content = bytearray(file.read_bytes())
    content[60] ^= 255
    (space.inner / "m.penjing").write_bytes(content)
    (space.inner / "n.json").write_bytes(b"[" * 100_000)
    graph = load(write(tmp_path / "other.penjing", call("aten.relu.default", X)))
    made = space.stage("prune", "m.penjing", lambda: graph, lambda one, path: one.save(path), load)
    number = space.stage("count", "n.json", lambda: 3, lambda one, path: path.write_text(str(one)), read_json)
    assert made is graph and number == 3
    assert "m.penjing is damaged, so 'prune' is done again" in said[0] and "so 'count' is done again" in said[1]
    assert isinstance(load(space.inner / "m.penjing"), pj.Graph)
