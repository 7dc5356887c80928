import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.ao.quantization.fx import _decomposed  # noqa: F401  registers torch.ops.quantized_decomposed
from training_fakes import Batches, Net, data, same_weights

from made_time import Time
from penjing.distillation.teachers import One
from penjing.tasks import Classification
from penjing.training import TrainingSettings, recover
from penjing.training.objective import Objective
from penjing.training.settings import Variant
from penjing.training.speed import WORTH_MEASURING, candidates, fastest, set_layout, step_seconds, thread_counts

SETTINGS = TrainingSettings(epochs=1, lr=0.1, signal="soft_labels")
PLAIN, BF16 = Variant(), Variant("bfloat16", True)


def test_what_the_settings_leave_open_is_tried_if_the_training_is_long_enough() -> None:
    assert len(candidates(Net(), SETTINGS, WORTH_MEASURING)) == 4
    assert candidates(Net(), SETTINGS, WORTH_MEASURING - 1) == [PLAIN]
    fixed = replace(SETTINGS, precision="bfloat16", channels_last=True)
    assert candidates(Net(), fixed, WORTH_MEASURING) == [BF16]


def test_a_quantised_graph_stays_in_float32() -> None:
    class Quantised(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q = torch.ops.quantized_decomposed.quantize_per_tensor.default(x, 0.1, 0, -128, 127, torch.int8)
            return torch.ops.quantized_decomposed.dequantize_per_tensor.default(q, 0.1, 0, -128, 127, torch.int8)

    net = Net()
    net.program = torch.fx.symbolic_trace(Quantised())
    assert {variant.precision for variant in candidates(net, SETTINGS, 1000)} == {"float32"}


def test_timing_steps_leaves_weights_and_statistics_as_they_were() -> None:
    net = Net().train()
    before = copy.deepcopy(net)
    objective = Objective(Classification(), One(Net(1)), SETTINGS, torch.device("cpu"))
    seconds = step_seconds(net, objective, SETTINGS, list(Batches(2)), [PLAIN, BF16], float("inf"))
    assert list(seconds) == [PLAIN, BF16] and all(value > 0 for value in seconds.values())
    assert same_weights(net, before) and net.conv.weight.grad is None


@pytest.mark.parametrize("balance", ["auto", "uncertainty"])
def test_timing_steps_leaves_what_is_trained_beside_the_student_as_it_was(balance: str) -> None:
    net, batches = Net(), list(Batches(2))
    settings = replace(SETTINGS, signal="contrastive", taps="conv", balance=balance)
    objective = Objective(Classification(), One(Net(1)), settings, torch.device("cpu"))
    objective.prepare(net, batches[0])
    assert objective.signal is not None
    beside = nn.ModuleList([objective.signal, objective.balance])
    before = copy.deepcopy(beside)
    step_seconds(net, objective, settings, batches, [PLAIN], float("inf"))
    assert same_weights(beside, before), "what a balance remembers is in its buffers"
    assert all(parameter.grad is None for parameter in beside.parameters())


def test_a_variant_takes_the_median_of_its_steps_behind_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, takes = Time(), iter([9.0, 9.0, 1.0, 5.0, 7.0, 3.0, 2.0, 4.0])  # in turns, the first of each to warm up
    monkeypatch.setattr("penjing.training.speed.time", clock)

    class Lasting(Objective):
        def __call__(self, model: nn.Module, batch: Any, variant: Variant) -> torch.Tensor:
            clock.sleep(next(takes))
            return super().__call__(model, batch, variant)

    objective = Lasting(Classification(), None, SETTINGS, torch.device("cpu"))
    seconds = step_seconds(Net(), objective, SETTINGS, list(Batches(2)), [PLAIN, BF16], float("inf"))
    assert seconds == {PLAIN: 2.0, BF16: 4.0}


def test_only_the_plain_variant_is_timed_where_time_is_short() -> None:
    objective = Objective(Classification(), None, SETTINGS, torch.device("cpu"))
    assert list(step_seconds(Net(), objective, SETTINGS, list(Batches(1)), [PLAIN, BF16], 0.0)) == [PLAIN]


@pytest.mark.parametrize(("seconds", "best"), [(0.5, BF16), (0.95, PLAIN), (2.0, PLAIN)])
def test_a_variant_must_be_clearly_faster_than_the_plain_one(seconds: float, best: Variant) -> None:
    assert fastest({PLAIN: 1.0, BF16: seconds}) == best


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine with two cores, on which nobody chose a number of threads."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


CPU = torch.device("cpu")


def test_one_thread_is_tried_beside_the_usual_number(two_threads: None) -> None:
    assert thread_counts(WORTH_MEASURING, CPU) == [2, 1]
    assert thread_counts(WORTH_MEASURING - 1, CPU) == [] and thread_counts(1000, torch.device("cuda")) == []
    torch.set_num_threads(1)
    assert thread_counts(1000, CPU) == []


def test_who_names_the_number_of_threads_has_chosen(two_threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert thread_counts(1000, CPU) == []


def test_steps_run_in_a_variant_s_number_of_threads_and_the_usual_comes_back(two_threads: None) -> None:
    seen: list[int] = []

    class Seen(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(torch.get_num_threads())
            return super().forward(x)

    variants = [Variant(threads=2), Variant(threads=1)]
    step_seconds(Seen(), Objective(Classification(), None, SETTINGS, CPU), SETTINGS, list(Batches(1)), variants, 1e9)
    assert seen == [2, 1] * 4 and torch.get_num_threads() == 2


@pytest.mark.parametrize(("one", "taken"), [(0.1, 1), (0.7, 2), (2.0, 2)])  # seconds of a step in a single thread
def test_one_thread_is_taken_where_it_is_much_faster_and_kept_when_the_run_goes_on(
    one: float, taken: int, two_threads: None, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penjing.training.speed.WORTH_MEASURING", 1)
    times = {2: 1.0, 1: one}
    monkeypatch.setattr("penjing.training.beginning.step_seconds", lambda *a: {v: times[v.threads] for v in a[4]})
    used: list[int] = []
    told: list[dict[str, Any]] = []
    options: dict[str, Any] = {"precision": "float32", "channels_last": False, "progress": False, "report": told.append}

    def stops(graph: nn.Module, share: float) -> None:
        used.append(torch.get_num_threads())
        if share > 0.6:
            raise RuntimeError("power cut")

    file = tmp_path / "run.pt"
    with pytest.raises(RuntimeError, match="power cut"):
        recover(Net(), data(), epochs=2, checkpoint=file, callbacks=[stops], **options)
    times.update({2: one, 1: 1.0})  # now it would be measured the other way round
    recover(
        Net(), data(), epochs=2, checkpoint=file, callbacks=[lambda *_: used.append(torch.get_num_threads())], **options
    )
    assert set(used) == {taken} and told[-1]["threads"] == taken and torch.get_num_threads() == 2


def test_a_checkpoint_of_an_earlier_version_names_no_threads() -> None:
    assert Variant(**{"precision": "float32", "channels_last": True}).threads is None


@pytest.mark.parametrize("stops_at", [0.01, 0.6])  # before the first checkpoint of an epoch, and behind it
def test_a_measured_choice_is_kept_when_a_run_goes_on(
    stops_at: float, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.pt"
    monkeypatch.setattr("penjing.training.speed.WORTH_MEASURING", 10)
    monkeypatch.setattr("penjing.training.beginning.step_seconds", lambda *_: {PLAIN: 1.0, BF16: 0.1})
    told: list[dict[str, Any]] = []
    whole = recover(Net(), data(), epochs=2, progress=False, report=told.append)
    assert (told[-1]["precision"], told[-1]["channels_last"]) == ("bfloat16", True)

    def fail(graph: nn.Module, share: float) -> None:
        if share > stops_at:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        recover(Net(), data(), epochs=2, checkpoint=path, callbacks=[fail], progress=False)
    monkeypatch.setattr("penjing.training.beginning.step_seconds", lambda *_: {PLAIN: 0.1, BF16: 1.0})
    assert same_weights(recover(Net(), data(), epochs=2, checkpoint=path, progress=False), whole)


def test_weights_of_3d_convolutions_keep_their_layout() -> None:
    net = nn.Sequential(nn.Conv3d(2, 3, 3), nn.Flatten(1, 2), nn.Conv2d(6, 4, 3), nn.Conv1d(2, 3, 3))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    parameters = list(net.parameters())
    set_layout(net, True)
    assert net[2].weight.is_contiguous(memory_format=torch.channels_last) and net[0].weight.is_contiguous()
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert all(a is b for a, b in zip(parameters, net.parameters(), strict=True))
    set_layout(net, False)
    assert net[2].weight.is_contiguous()
