"""When the teacher counts how much."""

import pytest

from penjing.distillation import distillation_schedules
from penjing.errors import PenjingError

COURSE = [step / 20 for step in range(21)]


@pytest.mark.parametrize("name", distillation_schedules)
def test_weights_are_between_zero_and_one_and_something_counts_all_the_time(name: str) -> None:
    weights = [distillation_schedules[name].function(progress) for progress in COURSE]
    assert all(0 <= task <= 1 and 0 <= guidance <= 1 and task + guidance > 0 for task, guidance in weights)
    assert any(guidance > 0 for _, guidance in weights) and weights[-1][0] == 1  # labels have the last word
    assert distillation_schedules[name].source and distillation_schedules[name].summary


def test_joint_weights_stay_as_they_are() -> None:
    assert {distillation_schedules["joint"].function(progress) for progress in COURSE} == {(1.0, 1.0)}


def test_the_teacher_is_alone_in_the_first_stage_and_then_has_company() -> None:
    staged = distillation_schedules["staged"].function
    assert [staged(progress) for progress in (0.0, 0.29)] == [(0.0, 1.0)] * 2
    assert [staged(progress) for progress in (0.3, 0.7, 1.0)] == [(1.0, 1.0)] * 3


def test_annealing_lets_the_teacher_fade_along_a_line() -> None:
    anneal = distillation_schedules["anneal"].function
    assert [anneal(progress) for progress in (0.0, 0.25, 1.0)] == [(1.0, 1.0), (1.0, 0.75), (1.0, 0.0)]


def test_an_unknown_schedule_is_told_the_nearest() -> None:
    with pytest.raises(PenjingError, match="Did you mean 'staged'"):
        distillation_schedules["stage"]
