"""What is special about ExecuTorch: integers in all that multiplies, one pool of threads, and what XNNPACK lacks."""

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import penjing as pj
from penjing.errors import PenjingError
from penjing.targets import (
    check_parity,
    integer_macs,
    lower,
    measure,
    measure_together,
    open_artifact,
    profile,
    run,
    session,
)

pytest.importorskip("executorch", reason="executorch isn't installed: pip install penjing[executorch]")
TARGET = "executorch"


def lowered(model, path, shape=(2, 3, 16, 16), data=None, **options):
    """Returns a quantised graph of a model and its file."""
    torch.manual_seed(0)
    graph = pj.capture(model.eval(), torch.randn(shape))
    data = [torch.randn(8, *shape[1:]) for _ in range(2)] if data is None else data
    small = pj.quantize(graph, data, target=TARGET, **options)
    return small, lower(small, TARGET, path / "model.pte")


class Bottleneck(nn.Module):
    """MobileNetV2's block."""

    def __init__(self, ins, outs, stride):
        super().__init__()
        wide = 4 * ins
        self.expand = nn.Sequential(nn.Conv2d(ins, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6())
        self.depthwise = nn.Sequential(
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide), nn.ReLU6()
        )
        self.project = nn.Sequential(nn.Conv2d(wide, outs, 1, bias=False), nn.BatchNorm2d(outs))
        self.adds = ins == outs and stride == 1

    def forward(self, x):
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.adds else y


def mobile():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU6(), Bottleneck(16, 16, 1), Bottleneck(16, 24, 2), nn.Dropout(0.1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10),
    )  # fmt: skip


@pytest.mark.parametrize("network", ["resnet20", "mobile"])
def test_all_that_multiplies_runs_in_integers_and_in_one_part(network, tmp_path):
    model = pj.zoo.resnet20() if network == "resnet20" else mobile()
    small, artifact = lowered(model, tmp_path, (2, 3, 32, 32))
    rows = profile(artifact)
    multiplying = [row for row in rows if row.op.startswith(("Convolution", "Fully Connected"))]
    assert multiplying and all(row.integer for row in multiplying), "\n".join(row.op for row in rows if not row.integer)
    assert integer_macs(artifact, small.cost()) == 1
    assert {row.name.partition(":")[0] for row in rows} == {"0"}, "another part is run by ExecuTorch's own kernels"
    modules = {row.module for row in small.cost().rows if row.macs}
    assert {row.module for row in rows if row.macs} == modules
    assert check_parity(artifact, small).top1_agreement == 1


def test_integers_agree_with_the_graph_on_digits(tmp_path):
    data = pj.data.digits()
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), Bottleneck(16, 16, 1), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(16, 10),
    )  # fmt: skip
    x, y = map(torch.cat, zip(*data.train, strict=True))
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(25):
        chosen = torch.randint(len(x), (64,))
        optimizer.zero_grad()
        F.cross_entropy(model(x[chosen]), y[chosen]).backward()
        optimizer.step()
    graph = pj.capture(model.eval(), x[:2])
    small = pj.quantize(graph, data, target=TARGET)
    images = torch.cat([batch[0] for batch in data.validation])[:128]
    parity = check_parity(lower(small, TARGET, tmp_path / "model.pte"), small, [images])
    assert parity.top1_agreement > 0.97, "the file computes what the graph computes"


class Pieces(nn.Module):
    """What XNNPACK has in other forms alone, or not at all, between layers."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.third, self.head = nn.Conv1d(8, 8, 3), nn.Linear(8, 5)

    def forward(self, x):
        x = self.first(F.pad(x, (1, 1, 1, 1))).clamp(-1, 2)
        strided = x[:, :, 1::2, :-2:3]
        left, right = strided.chunk(2, 1)
        x = torch.cat([right, left, left.relu()], 1)[:, 2:10]
        x = self.second(F.max_pool2d(x, 2, 1)).mean((2, 3))
        x = self.third(x.unsqueeze(2).expand(-1, -1, 4).contiguous()).mean(2)
        return self.head(x.unsqueeze(2).squeeze(2).reshape(-1, 8))


@pytest.mark.parametrize("integers", [False, True])
def test_ops_in_other_forms_give_the_same(integers, tmp_path):
    torch.manual_seed(0)
    graph = pj.capture(Pieces().eval(), torch.randn(2, 4, 16, 16))
    if integers:
        graph = pj.quantize(graph, [torch.randn(16, 4, 16, 16)], target=TARGET, corrections=())
    artifact = lower(graph, TARGET, tmp_path / "model.pte")
    x = torch.randn(5, 4, 16, 16)
    expected = graph(x).detach()
    limit = 0.05 if integers else 1e-5
    assert (run(artifact, x) - expected).abs().max() <= limit * expected.abs().max()
    strided = [row for row in profile(artifact) if row.op.startswith("slice_copy")]
    assert not strided, "slices with steps are XNNPACK's too"


@pytest.mark.parametrize(
    "weights", ["int4/channel", "int8/tensor", "ternary", "binary", "power_of_two:8", "int2/channel"]
)
def test_weights_of_each_grid_multiply_in_integers(weights, tmp_path):
    small, artifact = lowered(mobile(), tmp_path, (2, 3, 32, 32), per_layer={"*": weights}, corrections=())
    assert integer_macs(artifact, small.cost()) == 1


@pytest.mark.parametrize("activations", ["int8", "uint4", "int5"])
def test_activations_of_few_bits_are_clipped_as_in_the_graph(activations, tmp_path):
    small, artifact = lowered(mobile(), tmp_path, (2, 3, 32, 32), activations=activations, corrections=())
    x = torch.randn(4, 3, 32, 32)
    expected = small(x).detach()
    assert (run(artifact, x) - expected).abs().max() <= 0.1 * expected.abs().max()
    assert integer_macs(artifact, small.cost()) > 0.9


def test_a_graph_quantised_for_another_runtime_runs_too(tmp_path):
    torch.manual_seed(0)
    graph = pj.capture(mobile().eval(), torch.randn(2, 3, 32, 32))
    data = [torch.randn(8, 3, 32, 32)]
    for options in (
        {},
        {"weights": "uint8"},
        {"activations": None, "weights": "int4", "grain": "group:8", "exclude": ["0", "*depthwise*"]},
    ):
        small = pj.quantize(graph, data, **options)
        artifact = lower(small, TARGET, tmp_path / "model.pte")
        assert check_parity(artifact, small).max_abs_error < 0.05


def test_threads_are_what_was_asked_for_and_may_change(tmp_path, plain):
    from executorch.extension.pybindings import _C as runtime

    artifact = lower(plain, TARGET, tmp_path / "model.pte")
    x = torch.randn(1, 3, 12, 12)
    one, two = session(artifact, 1), session(artifact, 2)
    expected = plain(x)["logits"]
    for _ in range(2):  # in turns: each call finds the pool that the other left
        for runner, threads in ((one, 1), (two, 2)):
            torch.testing.assert_close(runner(x)["logits"], expected, rtol=1e-4, atol=1e-5)
            assert runtime._threadpool_get_thread_count() == threads
    found = measure_together({"a": artifact, "b": artifact}, threads=2, runs=2, seconds=0, memory=False)
    assert [one.threads for one in found.values()] == [2, 2] and runtime._threadpool_get_thread_count() == 2


def test_another_batch_is_refused_before_it_is_measured(tmp_path, plain):
    artifact = lower(plain, TARGET, tmp_path / "model.pte")
    with pytest.raises(PenjingError, match="takes 1 sample"):
        measure(artifact, batch=8, memory=False)


class Sorted(nn.Module):
    def forward(self, x):
        return torch.linalg.svd(x * 2)[1]


def test_an_op_that_cant_be_expressed_is_named_with_its_line_and_other_targets(tmp_path):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Sorted()

        def forward(self, x):
            return self.inner(x)

    graph = pj.capture(Net().eval(), torch.randn(2, 4, 4))
    with pytest.raises(PenjingError, match=r"linalg_svd.*test_executorch\.py:\d+.*'onnxruntime'"):
        lower(graph, TARGET, tmp_path / "model.pte")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", [b"\x89T12", b"ET\xff2", b"ET\n2"])
def test_a_file_whose_identifier_is_damaged_is_refused_and_the_process_lives(damage, tmp_path, plain):
    file = lower(plain, TARGET, tmp_path / "model.pte").path
    content = file.read_bytes()
    file.write_bytes(content[:4] + damage + content[8:])
    with pytest.raises(PenjingError, match="it is no program of ExecuTorch's, or it is damaged: its identifier is"):
        open_artifact(file, TARGET)


def test_damaged_notes_are_told(tmp_path, plain):
    artifact = lower(plain, TARGET, tmp_path / "model.pte")
    content = artifact.path.read_bytes()
    artifact.path.write_bytes(content.replace(b'{"inputs":[', b'{"inputs"::'))
    with pytest.raises(PenjingError, match=r"The notes in .* are damaged"):
        open_artifact(artifact.path, TARGET)
    artifact.path.write_bytes(content[: len(content) // 2])
    with pytest.raises(PenjingError, match="can't load"):
        open_artifact(artifact.path, TARGET)


def test_a_file_whose_offsets_lead_out_of_it_is_refused(tmp_path, plain):
    artifact = lower(plain, TARGET, tmp_path / "model.pte")
    content = bytearray(artifact.path.read_bytes())
    root = int.from_bytes(
        content[:4], "little"
    )  # where the first table stands, which says where its fields are described
    content[root : root + 4] = (2**30).to_bytes(4, "little")
    artifact.path.write_bytes(content)
    with pytest.raises(PenjingError, match="can't load"):
        open_artifact(artifact.path, TARGET)


def test_outputs_that_arent_floats_and_inputs_that_are_integers_keep_their_dtypes(tmp_path):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(9, 4)

        def forward(self, tokens):
            x = self.embed(tokens)
            return x.sum(2).argmax(1), x

    graph = pj.capture(Net().eval(), torch.randint(9, (2, 5)))
    artifact = lower(graph, TARGET, tmp_path / "model.pte")
    assert [spec.dtype for spec in artifact.inputs] == ["int64"]
    tokens = torch.randint(9, (3, 5))
    for have, want in zip(run(artifact, tokens), graph(tokens), strict=True):
        assert have.dtype == want.dtype
        torch.testing.assert_close(have, want)


def test_the_exporter_is_not_imported_to_run_a_file(tmp_path, plain):
    artifact = lower(plain, TARGET, tmp_path / "model.pte")
    code = (
        "import sys, numpy as np\nfrom penjing.targets import open_artifact, run\n"
        f"run(open_artifact({str(artifact.path)!r}, 'executorch'), np.zeros((1, 3, 12, 12), np.float32))\n"
        "print('executorch.exir' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "False" and not done.stderr, done.stderr
