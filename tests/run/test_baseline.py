"""Whether there is anything in the original that a smaller model could keep, and what a budget makes of it."""

import math
from dataclasses import replace

import pytest
import torch

from penjing.data import Data
from penjing.errors import PenjingError
from penjing.run import baseline as module
from penjing.run.baseline import Baseline, collapsed, judge_original, nothing_learned, too_coarse, too_generous
from penjing.tasks import R2, TOP_ONE, Classification, Likeness, Regression, Unlabelled

ALIKE = Likeness(0.97, TOP_ONE, 0.3)


@pytest.fixture
def judged(monkeypatch):
    """Returns a function that judges a network, given as a function of its inputs, on four samples."""
    monkeypatch.setattr(module, "session", lambda artifact, threads: artifact)

    def judge(network, targets=(0, 1, 1, 2), task=Classification()):  # noqa: B008  it has no state
        batch = (torch.zeros(4, 3), torch.tensor(targets)) if task.labelled else (torch.zeros(4, 3),)
        return judge_original(network, Data(None, None, [batch], task), 1)

    return judge


def test_the_original_is_judged_beside_the_best_constant_answer(judged):
    assert judged(lambda x: torch.eye(3)[[0, 1, 1, 2]]) == Baseline(1.0, 0.5, 4, judged=4)
    assert judged(lambda x: x, task=Unlabelled()) == Baseline(None)


def test_a_task_that_does_not_know_its_best_constant_answer_has_none(judged):
    class Other(Classification):
        constant = None

    assert judged(lambda x: torch.eye(3)[[0, 1, 1, 2]], task=Other()) == Baseline(1.0, judged=4)


def test_an_original_whose_metric_is_not_a_number_is_refused(judged, monkeypatch):
    monkeypatch.setattr(module, "evaluate", lambda *_: -math.inf)
    with pytest.raises(PenjingError, match=r"The original's accuracy .* isn't a finite number"):
        judged(None)


@pytest.mark.parametrize(
    ("metric", "constant", "trained", "learned"),
    [
        (0.0, 0.33, True, False),
        (0.33, 0.33, True, False),
        (0.33 + 1e-8, 0.33, True, False),
        (0.34, 0.33, True, True),
        (0.40, 0.33, False, False),  # of 30 samples, one in five networks that guess has that
        (0.60, 0.33, False, True),
        (0.2, None, False, True),
    ],
)
def test_an_original_that_is_no_better_than_a_constant_answer_has_learned_nothing(metric, constant, trained, learned):
    told = nothing_learned(Baseline(metric, constant, 30), ALIKE, Classification(), trained)
    assert (told is None) == learned
    if told is not None:
        assert f"accuracy {metric:.4f}, against 0.3300" in told and ("no weights were given" in told) == (not trained)


def test_without_labels_an_original_that_answers_every_input_alike_has_learned_nothing():
    assert nothing_learned(Baseline(None), ALIKE, Unlabelled(), True) is None
    assert "every input alike" in nothing_learned(Baseline(None), replace(ALIKE, constant=1.0), Unlabelled(), True)


def test_a_drop_that_a_constant_answer_would_keep_is_told():
    assert (
        too_generous(Baseline(0.9, 0.3, 9), ALIKE, 0.01) is None
        and too_generous(Baseline(0.9, 0.3, 9), ALIKE, None) is None
    )
    assert "reaches 0.8950" in too_generous(Baseline(0.9, 0.895, 9), ALIKE, 0.01)
    assert "drop of 0.4" in too_generous(Baseline(None), replace(ALIKE, constant=0.7), 0.4)
    assert too_generous(Baseline(0.9), None, 0.6) is None
    error = Regression("mae")
    assert "reaches 0.3000" in too_generous(Baseline(-0.2, -0.3, 9), None, 0.2, error), "an error, without its sign"
    assert "reaches 0.7000" in too_generous(Baseline(None), replace(ALIKE, constant=0.7), 0.4, error), "an agreement"


@pytest.mark.parametrize(
    ("drop", "said"),
    [
        (0.005, "One of 90 images is 1.1 points, more than the 0.5 that"),
        (0.02, "One of 90 images is 1.1 points, a large part of the 2 that"),
        (0.032, "a large part of the 3.2 that"),
        (0.034, None),
        (0.0, None),
        (None, None),
    ],
)
def test_a_drop_of_less_than_three_samples_is_told_with_what_one_counts(drop, said):
    told = too_coarse(Baseline(0.9, 0.3, 90, judged=90), drop, "images")
    assert (told is None) == (said is None) and (said is None or said in told)


def test_how_much_a_sample_counts_is_told_only_where_it_is_known():
    assert too_coarse(Baseline(0.9, 0.3, 90 * 64, judged=90), 0.005, "images") is None, "each image has many targets"
    assert too_coarse(Baseline(0.9, None, judged=90), 0.005, "images") is None, (
        "the metric may be no share of the images"
    )


@pytest.mark.parametrize(
    ("metric", "alike", "lost"),
    [
        (0.3, ALIKE, True),
        (0.2, ALIKE, True),
        (0.31, ALIKE, False),
        (None, ALIKE, False),
        (None, Likeness(0.0, R2, 0.0), True),
        (None, Likeness(0.3, TOP_ONE, 0.3), True),
        (None, None, False),
    ],
)
def test_what_answers_every_input_alike_is_no_result_whatever_drop_was_allowed(metric, alike, lost):
    assert (collapsed(0.3, metric, alike, Classification()) is not None) == lost
    assert collapsed(None, 0.0, alike, Classification()) is None, "of a task that doesn't know its best constant answer"


def test_a_baseline_is_read_as_it_was_written_and_nothing_else_is():
    kept = Baseline(0.5, 0.25, 8, judged=4)
    assert Baseline.from_dict(kept.to_dict()) == kept
    for record in (
        0.5,
        None,
        {"metric": 0.5},
        kept.to_dict() | {"metric": "good"},
        kept.to_dict() | {"constant": True},
    ):
        with pytest.raises(PenjingError):
            Baseline.from_dict(record)
