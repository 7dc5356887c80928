"""What stands in for the metric: it must be able to fail, whatever a network's outputs are."""

import math
from types import SimpleNamespace

import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, r2_score

from penjing.errors import PenjingError
from penjing.tasks import Classification, Unlabelled, agreement, evaluate, likeness

DRAWN = torch.Generator().manual_seed(0)
LOGITS = torch.randn(400, 6, generator=DRAWN)
NOISE = torch.randn(400, 6, generator=DRAWN)


def compared(original, other, answers="auto", batch=64):
    """Compares two networks that give these outputs to their inputs, the samples' numbers."""
    loader = [(numbers,) for numbers in torch.arange(400).split(batch)]

    def looks_up(table):
        return lambda numbers: [one[numbers] for one in table] if isinstance(table, list) else table[numbers]

    return likeness(looks_up(original), looks_up(other), loader, Unlabelled(answers))


def test_the_values_of_a_single_column_are_judged_by_their_coefficient_of_determination():
    one, other = 5 + 3 * LOGITS[:, :1], 5 + 3 * LOGITS[:, :1] + NOISE[:, :1]
    found = compared(one, other)
    assert (found.measure, found.constant) == ("R²", 0.0)
    assert found.value == pytest.approx(r2_score(one, other), abs=1e-6)
    assert compared(one[:, 0], other[:, 0]).value == pytest.approx(found.value), "an axis of columns is no must"


def test_a_vector_of_measurements_is_judged_column_by_column_whatever_their_units():
    scales = torch.tensor([1e-3, 1.0, 1e3, 1.0, 1.0, 1.0])
    one, other = LOGITS * scales + 100 * scales, (LOGITS + 0.3 * NOISE) * scales + 100 * scales
    found = compared(one, other, "values")
    assert found.value == pytest.approx(r2_score(one, other, multioutput="uniform_average"), abs=1e-3)


def test_values_of_which_the_same_column_is_always_the_largest_are_no_classes():
    boxes = LOGITS.abs().cumsum(1)  # the last edge is always the largest, so its place says nothing
    found = compared(boxes, torch.zeros_like(boxes) + torch.arange(6.0))
    assert (found.measure, found.value) == ("R²", 0.0)


def test_a_probability_is_judged_by_its_decisions_and_rare_ones_count_as_much():
    one, other = (LOGITS[:, :1] - 2).sigmoid(), (LOGITS[:, :1] - 2 + 0.5 * NOISE[:, :1]).sigmoid()
    found = compared(one, other)
    assert found.measure == "decisions at 0.5" and 0 < float((one >= 0.5).float().mean()) < 0.1
    assert found.value == pytest.approx(balanced_accuracy_score(one >= 0.5, other >= 0.5))
    assert compared(one, torch.zeros_like(one)).value == 0.5 == found.constant, "always no is half right"


def test_a_probability_that_never_says_yes_is_judged_by_its_values():
    rare = (LOGITS[:, :1] - 9).sigmoid()
    assert compared(rare, torch.zeros_like(rare)).measure == "R²"
    assert compared(rare, torch.zeros_like(rare)).value == 0.0


def test_one_channel_per_pixel_can_fail_too():
    depth = torch.randn(400, 1, 3, 3, generator=DRAWN)
    assert compared(depth, depth).value == 1.0
    assert compared(depth, -depth).value == 0.0
    half = torch.cat([depth[:, :, :2], depth[:, :, 2:] * 0], 2)
    assert 0.5 < compared(depth, half).value < 0.8


def test_classes_are_judged_by_the_largest_entry_and_tell_what_a_constant_reaches():
    found = compared(LOGITS, LOGITS + 0.5 * NOISE)
    shares = LOGITS.argmax(1).bincount() / 400
    assert found.measure == "top-1" and found.constant == pytest.approx(float(shares.max()))
    assert found.value == pytest.approx(float((LOGITS.argmax(1) == (LOGITS + 0.5 * NOISE).argmax(1)).float().mean()))


@pytest.mark.parametrize("columns", [1, 6])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_a_number_agrees_with_nothing(columns, value):
    one = LOGITS[:, :columns]
    assert compared(one, torch.full_like(one, value)).value == 0.0
    broken = torch.full_like(one, math.nan)
    assert compared(broken, broken).value == 0.0


def test_equal_scores_for_all_classes_are_no_answer():
    first = LOGITS.clone()
    first[:300, 0] = 9.0
    assert compared(first, torch.zeros_like(first)).value == 0.0
    assert (
        evaluate(lambda x: torch.zeros(len(x), 3), [(torch.zeros(4, 1), torch.zeros(4).long())], Classification()) == 0
    )
    broken = torch.tensor([[math.nan, 0.0, 1.0]])
    assert evaluate(lambda x: broken, [(torch.zeros(1, 1), torch.tensor([0]))], Classification()) == 0


def test_an_original_that_always_gives_the_same_tells_nothing_and_says_so():
    flat = torch.full((400, 3), 0.7)
    found = compared(flat, flat)
    assert (found.value, found.constant) == (1.0, 1.0)
    assert compared(flat, flat + 1).value == 0.0


def test_of_several_outputs_the_least_alike_is_told():
    boxes = LOGITS.cumsum(0)
    found = compared([LOGITS, boxes], [LOGITS, boxes.roll(37, 0)], "auto")
    assert (found.output, found.outputs) == (1, 2) and found.value < 0.9
    assert compared([LOGITS, boxes], [LOGITS, boxes]).value == 1.0
    with pytest.raises(PenjingError, match="they have 2 and 1 outputs"):
        compared([LOGITS, boxes], [LOGITS])


def test_whole_numbers_agree_where_they_are_equal():
    picked = LOGITS.argmax(1)
    found = compared(picked, torch.where(torch.arange(400) < 100, 7, picked))
    assert (found.measure, found.value) == ("equal values", 0.75)


def test_masked_entries_that_both_have_are_no_error():
    masked = LOGITS.clone()
    masked[:, 2] = -math.inf
    assert compared(masked, masked, "values").value == 1.0


def test_sequences_of_different_lengths_are_compared_together():
    def outputs(x):
        return x.transpose(1, 2)

    loader = [(torch.randn(4, 3, length, generator=DRAWN),) for length in (5, 7)]
    assert agreement(outputs, outputs, loader, Unlabelled("values")) == 1.0


def test_what_the_outputs_are_can_be_said_and_has_to_be_known():
    found = compared(LOGITS, LOGITS * 3, "values")
    assert found.measure == "R²" and found.value == 0.0
    assert compared(LOGITS, LOGITS * 3, "classes").value == 1.0
    with pytest.raises(PenjingError, match="need outputs"):
        compared(LOGITS[:, :1], LOGITS[:, :1], "classes")
    with pytest.raises(PenjingError, match="Unknown kind of answers 'class'"):
        Unlabelled("class")


@pytest.mark.parametrize("outputs", [2, 10])
def test_outputs_that_do_not_fit_the_classes_are_refused_by_metric_and_loss(outputs):
    task, logits, targets = Classification(3), torch.zeros(4, outputs), torch.zeros(4).long()
    for use in (task.loss, task.metric().update):
        with pytest.raises(PenjingError, match=rf"has {outputs} outputs, but the data has 3 classes.*Classification"):
            use(logits, targets)


def test_a_single_output_has_no_accuracy():
    for use in (Classification().loss, Classification().metric().update):
        with pytest.raises(PenjingError, match=r"a single output.*threshold"):
            use(torch.zeros(4, 1), torch.zeros(4).long())


def test_the_best_constant_answer_is_the_most_frequent_class():
    assert Classification().constant([torch.tensor([0, 1, 1]), torch.tensor([2, 1])]) == 0.6
    assert Classification().constant([torch.tensor([[0, 1], [1, 1]])]) == 0.75


def test_a_metric_that_is_not_a_number_is_worse_than_any():
    metric = SimpleNamespace(update=lambda *_: None, compute=lambda: torch.tensor(math.nan))
    task = Classification()
    task.metric = lambda: metric
    assert evaluate(lambda x: x, [(torch.zeros(2), torch.zeros(2))], task) == -math.inf


def test_outputs_without_a_single_value_tell_nothing():
    """As of a detector that finds nothing in any image."""
    nothing = torch.zeros(400, 0)
    found = compared(nothing, nothing)
    assert (found.value, found.constant) == (1, 1)
    beside = compared([LOGITS, nothing], [NOISE, nothing])
    assert beside.output == 0 and beside.value < 0.5
