"""Files whose meaning was changed at random. benchmarks/file_fuzz.py opens 200,000 of them."""

import itertools
import multiprocessing
import os
import resource
import zipfile
from pathlib import Path
from random import Random

import compact_mutations
import hostile_networks
import plain_mutations
import pytest
import torch

from penjing.errors import PenjingError
from penjing.graph import Graph, load
from penjing.records import LARGEST
from penjing.storage.admission import ADMITTED

NAMES = list(hostile_networks.NETWORKS)
OPS = tuple(sorted(ADMITTED))
MEMORY = 512 * 2**20  # beyond what the process has, for all that it opens


def hostile(seed: int, compact: bool) -> bytes:
    random = Random(seed)
    name = random.choice(NAMES)
    if compact:
        return compact_mutations.mutate_graph(
            hostile_networks.content(name), hostile_networks.files(name)[True], random, OPS
        )
    return plain_mutations.mutate(hostile_networks.content(name), random, OPS)


def open_all(seeds: range, compact: bool, path: Path, results) -> None:
    """Opens files in a process of bounded memory, and says which one is next, so that the one that kills it is known."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY,) * 2)
    for seed in seeds:
        results.send(f"died at seed {seed}")
        path.write_bytes(hostile(seed, compact))
        try:
            graph = load(path, largest=2**22)
            assert isinstance(graph, Graph)
        except PenjingError as error:
            results.send("refused" if str(error) else f"refused seed {seed} without a word")
            continue
        except BaseException as error:
            results.send(f"seed {seed}: {error!r}")
            continue
        try:
            with torch.no_grad():
                args, keywords = graph.example_call()
                graph(*args, **keywords)
            results.send("ran")
        except (PenjingError, RuntimeError, IndexError, ValueError):  # an op may refuse the values that it meets
            results.send("stopped")
        except BaseException as error:
            results.send(f"seed {seed} ran: {error!r}")
        assert os.listdir(path.parent) == [path.name]
    results.send("done")


@pytest.mark.parametrize("compact", [False, True], ids=["plain", "compact"])
def test_files_of_changed_meaning_are_refused_or_run(tmp_path, compact):
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=open_all, args=(range(100), compact, tmp_path / "m.penjing", send))
    process.start()
    send.close()
    outcomes = []
    try:
        while True:
            outcomes.append(receive.recv())
    except EOFError:
        process.join()
    assert outcomes[-1] == "done"
    assert {outcome for outcome in outcomes[:-1] if not outcome.startswith("died")} <= {"refused", "ran", "stopped"}
    assert min(outcomes.count("refused"), outcomes.count("ran")) > 5  # neither all nor none


def test_the_networks_run_from_both_of_their_files(tmp_path):
    """What the changes begin with is whole, so that what is refused was refused for the change."""
    for name in ("convolution", "quantized", "sizes"):
        for compact, content in hostile_networks.files(name).items():
            path = tmp_path / f"{compact}.penjing"
            path.write_bytes(content)
            loaded, graph = load(path), hostile_networks.graph(name)
            args, keywords = graph.example_call(3)
            for left, right in zip(
                *(torch.utils._pytree.tree_leaves(g(*args, **keywords)) for g in (graph, loaded)), strict=True
            ):
                torch.testing.assert_close(left, right)


def test_the_unchanged_content_builds_files_that_load(tmp_path):
    for name in ("quantized", "words"):
        for build in (plain_mutations.build, compact_mutations.build):
            path = tmp_path / "m.penjing"
            path.write_bytes(build(hostile_networks.content(name)))
            assert load(path).input_names == hostile_networks.graph(name).input_names


@pytest.mark.parametrize(
    ("op", "position", "value"),
    [
        ("dequantize_per_tensor.default", 5, {"dtype": "int16"}),
        ("dequantize_per_channel.default", 6, {"dtype": "uint8"}),
        ("quantize_per_tensor.default", 1, 0.0),
        ("quantize_per_tensor.default", 3, -1000),
        ("quantize_per_tensor.default", 5, {"dtype": "float32"}),
        ("quantize_per_channel.default", 4, 127),
    ],
)
def test_a_quantiser_that_would_fail_when_it_runs_is_refused(tmp_path, op, position, value):
    content = hostile_networks.content("quantized").copy()
    next(node for node in content.calls() if node["target"].endswith(f".{op}"))["args"][position] = value
    (tmp_path / "m.penjing").write_bytes(plain_mutations.build(content))
    with pytest.raises(PenjingError, match=op.partition(".")[0]):
        load(tmp_path / "m.penjing")


@pytest.mark.parametrize(
    "edit",
    [
        lambda signature: signature.update(order=[{}]),
        lambda signature: signature.update(positional=[1]),
        lambda signature: signature["leaves"][0].update(sizes=["a", "b", "c", "d"]),
        lambda signature: signature["leaves"][0].update(dynamic=[7], sizes=["", ""]),
        lambda signature: signature["leaves"][0].update(
            columns=[[0, [0, 0], [1, 1], []]], sizes=["a", ""], dynamic=[0]
        ),
        lambda signature: signature.update(spec={"tuple": [{"tuple": []}, {"dict": [[1, "leaf"]]}]}, positional=[]),
    ],
    ids=["order", "positional", "sizes", "no such axis", "ranges along a free axis", "keywords"],
)
def test_arguments_that_no_call_could_have_are_refused(tmp_path, edit):
    content = hostile_networks.content("quantized").copy()
    edit(content.description["signature"])
    (tmp_path / "m.penjing").write_bytes(plain_mutations.build(content))
    with pytest.raises(PenjingError, match=r"names|nested|inputs|ranges for each index|described wrongly"):
        load(tmp_path / "m.penjing")


def test_a_graph_of_tens_of_thousands_of_nodes_is_refused_before_it_is_built(tmp_path):
    content = hostile_networks.content("quantized").copy()
    last = content.calls()[-1]
    names = [last["name"], *(f"more_{number}" for number in range(30_000))]
    more = [
        {**last, "name": name, "target": "aten.relu.default", "args": [{"node": before}], "kwargs": {}}
        for before, name in itertools.pairwise(names)
    ]
    content.nodes[-1:-1] = more
    content.nodes[-1]["args"] = [[{"node": names[-1]}]]
    (tmp_path / "m.penjing").write_bytes(plain_mutations.build(content))
    with pytest.raises(PenjingError, match="nodes, and 4,096 are allowed"):
        load(tmp_path / "m.penjing")


@pytest.mark.parametrize("member", ["graph.json", "plan.json"])
def test_a_text_beyond_the_limit_is_refused_by_the_size_that_it_claims(tmp_path, member):
    """Nothing is unpacked for that: the packed text here is small, and far from as long as it says."""
    content = hostile_networks.content("quantized")
    path = tmp_path / "m.penjing"
    path.write_bytes(plain_mutations.build(content))
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text, zipfile.ZIP_DEFLATED if name.endswith(".json") else zipfile.ZIP_STORED)
    whole = bytearray(path.read_bytes())
    record = whole.index(member.encode(), whole.index(b"PK\1\2")) - 46  # its record in the directory at the end
    for claimed, told in ((LARGEST, "another size"), (LARGEST + 1, "larger than")):
        whole[record + 24 : record + 28] = claimed.to_bytes(4, "little")
        path.write_bytes(whole)
        with pytest.raises(PenjingError, match=rf"{member}.* {told}"):
            load(path)


@pytest.mark.parametrize("dtype", ["bits4x2", "uint4", "quint8"])
def test_inputs_of_a_dtype_of_which_no_example_can_be_made_are_refused(tmp_path, dtype):
    content = hostile_networks.content("quantized").copy()
    content.inputs[0]["dtype"] = dtype
    (tmp_path / "m.penjing").write_bytes(plain_mutations.build(content))
    with pytest.raises(PenjingError, match=f"the input 'x' has the dtype torch.{dtype}"):
        load(tmp_path / "m.penjing")
