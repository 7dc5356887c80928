import pytest
import torch
from torch import nn

from penjing.errors import PenjingError
from penjing.graph import capture
from penjing.targets import check_parity, integer_macs, lower, measure, profile, run, session
from penjing.tasks import Classification, evaluate

BATCH = 4


class Fixed(nn.Module):
    """Its reshape to a number fixes the batch."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x):
        return self.layer(x.reshape(BATCH, 6))


@pytest.fixture(scope="module")
def graph():
    torch.manual_seed(0)
    return capture(Fixed().eval(), torch.randn(BATCH, 2, 3))


@pytest.fixture(scope="module")
def artifact(graph, tmp_path_factory):
    return lower(graph, path=tmp_path_factory.mktemp("fixed") / "model.onnx")


@pytest.mark.parametrize("count", [1, 3, 4, 9])
def test_any_number_of_samples_gives_one_output_each(graph, artifact, count):
    assert artifact.batch == BATCH
    x = torch.randn(count, 2, 3)
    layer = {name.rpartition(".")[2]: tensor for name, tensor in graph.tensors().items()}
    expected = nn.functional.linear(x.flatten(1), layer["weight"], layer["bias"])
    torch.testing.assert_close(run(artifact, x), expected, rtol=1e-4, atol=1e-5)


def test_it_is_evaluated_on_a_loader_of_other_batches(artifact):
    x = torch.randn(10, 2, 3)
    y = run(artifact, x).argmax(1)
    loader = [(x[:7], y[:7]), (x[7:], (y[7:] + 1) % 3)]
    assert evaluate(session(artifact), loader, Classification(3)) == pytest.approx(0.7)


@pytest.mark.parametrize("count", [2, 64])
def test_parity_takes_more_and_fewer_samples_than_the_batch(graph, artifact, count):
    parity = check_parity(artifact, graph, (torch.randn(count, 2, 3),))
    assert parity.max_abs_error < 1e-5 and parity.top1_agreement == 1


def test_outputs_that_are_not_one_per_sample_are_not_joined(tmp_path):
    class Mean(nn.Module):
        def forward(self, x):
            return x.reshape(BATCH, 6).mean(0)

    artifact = lower(capture(Mean(), torch.randn(BATCH, 2, 3)), path=tmp_path / "model.onnx")
    with pytest.raises(PenjingError, match="takes 4 samples, not 8"):
        run(artifact, torch.randn(8, 2, 3))


def test_the_batch_is_that_of_the_file_when_measured(artifact):
    assert measure(artifact, runs=1, seconds=0, memory=False).batch == BATCH


def test_the_integer_share_is_counted_per_sample(pair, tmp_path):
    class Quantised(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("weight", torch.randint(-127, 128, (8, 6), dtype=torch.int8))

        def forward(self, x):
            ops = torch.ops.quantized_decomposed
            weight = ops.dequantize_per_tensor.default(self.weight, 0.01, 0, -127, 127, torch.int8)
            return pair(nn.functional.linear(pair(x.reshape(BATCH, 6), 0.02, 128), weight), 0.02, 128)

    artifact = lower(capture(Quantised(), torch.randn(BATCH, 2, 3)), path=tmp_path / "model.onnx")
    assert integer_macs(artifact, 6 * 8) == 1


def test_another_batch_than_the_files_is_not_measured(artifact):
    with pytest.raises(PenjingError, match="in a call, so that it can't be measured with 3"):
        measure(artifact, batch=3, runs=1, seconds=0, memory=False)
    with pytest.raises(PenjingError, match="can't be measured with 3"):
        profile(artifact, batch=3)
