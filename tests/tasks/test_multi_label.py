"""Several labels per sample: the metrics are scikit-learn's, and targets that don't fit are refused."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score

import penjing as pj
from penjing.errors import PenjingError
from penjing.tasks import MultiLabel, evaluate


def drawn(seed, samples=40, labels=4):
    generator = torch.Generator().manual_seed(seed)
    targets = (torch.rand(samples, labels, generator=generator) < 0.3).long()
    logits = 60 * torch.randn(samples, labels, generator=generator)  # beyond where float32's sigmoid is 1
    return logits, targets


@given(st.integers(0, 50))
def test_f1_over_batches_is_that_of_scikit_learn(seed):
    logits, targets = drawn(seed)
    metric = MultiLabel(4, metric="f1").metric()
    for at in range(0, 40, 12):
        metric.update(logits[at : at + 12], targets[at : at + 12])
    wanted = f1_score(targets.numpy(), (logits > 0).numpy(), average="macro", zero_division=0)
    assert float(metric.compute()) == pytest.approx(wanted, abs=1e-6)


def test_labels_that_no_sample_has_are_left_out_of_average_precision():
    logits, targets = drawn(0)
    targets[:, 2] = 0
    metric = MultiLabel(4).metric()
    metric.update(logits / 60, targets)
    kept = [0, 1, 3]
    wanted = np.mean([average_precision_score(targets[:, one].numpy(), logits[:, one].numpy()) for one in kept])
    assert float(metric.compute()) == pytest.approx(wanted, abs=1e-6)


def test_the_best_constant_answer_of_f1_is_yes_everywhere():
    _, targets = drawn(1)
    task = MultiLabel(4, metric="f1")
    metric = task.metric()
    metric.update(torch.ones(40, 4), targets)
    assert task.constant([targets[:20], targets[20:]]) == pytest.approx(float(metric.compute()))


def test_an_answer_of_nan_is_never_right():
    targets = torch.tensor([[1, 0], [0, 1], [1, 0]])
    for metric in ("average_precision", "f1"):
        found = evaluate(lambda x: torch.full((3, 2), torch.nan), [(targets.float(), targets)], MultiLabel(2, metric))
        assert found < 0.67


@pytest.mark.parametrize(
    ("outputs", "targets", "message"),
    [
        (torch.zeros(2, 3), torch.zeros(2, 4), r"logits \(N, 4\).*\(2, 3\) and \(2, 4\)"),
        (torch.zeros(2, 4), torch.tensor([1, 3]), r"\(2, 4\) and \(2,\).*use Classification"),
        (torch.zeros(2, 4), torch.tensor([[0, 1, 0, 0], [0, 0, 7, 0]]), "label 2 of sample 1 of a batch is 7"),
    ],
)
def test_targets_that_do_not_fit_are_refused_with_what_to_do(outputs, targets, message):
    task = MultiLabel(4)
    for refused in (task.loss, task.metric().update):
        with pytest.raises(PenjingError, match=message):
            refused(outputs, targets)


def test_shares_of_a_label_have_a_loss_but_no_metric():
    task, targets = MultiLabel(2), torch.tensor([[0.5, 1.0]])
    assert float(task.loss(torch.zeros(1, 2), targets)) == pytest.approx(0.6931, abs=1e-4)
    with pytest.raises(PenjingError, match="0 or 1, but some lie between"):
        task.metric().update(torch.zeros(1, 2), targets)


def test_labels_can_be_mixed_by_augmentations():
    torch.manual_seed(0)
    batches = [(torch.randn(8, 5), torch.randint(0, 2, (8, 3))) for _ in range(3)]
    told = []
    pj.recover(
        torch.nn.Linear(5, 3), pj.Data(batches, None, None, MultiLabel(3)), epochs=2, lr=0.1, augment="mixup",
        precision="float32", channels_last=False, progress=False, report=told.append,
    )  # fmt: skip
    assert told[1]["losses"]["task"] < told[0]["losses"]["task"]


def test_names_that_are_unknown_are_refused_with_the_nearest():
    with pytest.raises(PenjingError, match="Did you mean 'f1'"):
        MultiLabel(3, metric="f2")
