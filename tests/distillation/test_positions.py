"""One resolution for two networks, and which positions count."""

import numpy as np
import pytest
import torch

from penjing.distillation import Comparison, Seen, counted_positions, signals, values
from penjing.distillation.comparison import mean_over
from penjing.distillation.inner import compared
from penjing.distillation.positions import position_weights
from penjing.errors import PenjingError


def test_the_larger_map_is_averaged_to_the_smaller() -> None:
    student, teacher = torch.randn(2, 1, 3, 4, 8, generator=torch.Generator().manual_seed(8))[:, 0].split(1)
    small = teacher[:, :, ::2, ::4]
    pair = compared(student, small, None)
    by_hand = student.numpy().reshape(1, 3, 2, 2, 2, 4).mean((3, 5))
    np.testing.assert_allclose(pair.student, by_hand, rtol=1e-5)
    assert torch.equal(pair.teacher, small)
    swapped = compared(small, student, None)
    assert torch.equal(swapped.teacher, pair.student) and torch.equal(swapped.student, small)


def test_maps_that_are_larger_along_different_axes_meet_at_the_smaller_of_each() -> None:
    pair = compared(torch.randn(2, 3, 8, 4), torch.randn(2, 5, 4, 8), None)
    assert pair.student.shape == (2, 3, 4, 4) and pair.teacher.shape == (2, 5, 4, 4)


def test_sequences_are_averaged_along_their_order() -> None:
    student, teacher = torch.arange(6.0).reshape(1, 6, 1), torch.zeros(1, 3, 1)
    assert compared(student, teacher, None).student.flatten().tolist() == [0.5, 2.5, 4.5]


def test_averages_leave_out_what_does_not_count() -> None:
    student, teacher = torch.tensor([1.0, 99, 3, 5, 99, 99]).reshape(1, 6, 1), torch.zeros(1, 3, 1)
    pair = compared(student, teacher, torch.tensor([[True, False, True, True, False, False]]))
    assert pair.student.flatten().tolist() == [1, 4, 0]
    assert pair.weights.flatten().tolist() == [0.5, 1, 0]


def test_a_coarse_position_weighs_as_much_as_the_share_of_its_pixels_that_count() -> None:
    counted = torch.ones(1, 4, 4, dtype=torch.bool)
    counted[0, 0] = counted[0, 1, :2] = False
    assert position_weights(counted, (1, 2, 2)).tolist() == [[[0, 0.5], [1, 1]]]
    hints = signals["hints"].function()
    student, teacher = torch.zeros(1, 1, 2, 2), torch.tensor([[[[9.0, 1], [2, 3]]]])
    seen = Comparison(Seen(None, [student]), Seen(None, [teacher]), counted=counted)
    hints.prepare(seen)
    assert hints(seen).item() == pytest.approx(0.5 * (0.5 * 1 + 4 + 9) / 2.5)


def test_a_sample_counts_for_its_vector_if_any_of_its_positions_does() -> None:
    counted = torch.tensor([[True, False], [False, False]])
    assert position_weights(counted, (2,)).tolist() == [1, 0]
    assert position_weights(torch.tensor([True, False]), (2, 1, 2)).tolist() == [[[1, 1]], [[0, 0]]]
    assert position_weights(None, (2, 5)) is None


def test_pixels_do_not_say_which_tokens_count() -> None:
    with pytest.raises(PenjingError, match=r"\(2, 4, 4\).*\(2, 17\).*taps="):
        compared(torch.zeros(2, 17, 3), torch.zeros(2, 17, 3), torch.ones(2, 4, 4, dtype=torch.bool))


@pytest.mark.parametrize("shape", [(4,), (1, 2, 3, 4, 5, 6)])
def test_values_that_are_neither_vectors_nor_sequences_nor_maps_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(PenjingError, match="can't be compared: vectors"):
        compared(torch.zeros(shape), torch.zeros(shape), None)


def test_padded_labels_say_which_positions_count() -> None:
    assert counted_positions(torch.tensor([[3, -100], [0, 1]])).tolist() == [[True, False], [True, True]]
    assert counted_positions(torch.tensor([3, 0])) is None
    assert counted_positions(torch.zeros(2, 3)) is None and counted_positions(None) is None


def test_padded_inputs_and_labels_that_are_left_out_both_say_which_positions_count() -> None:
    tokens = torch.tensor([[True, True], [True, False]])
    assert torch.equal(counted_positions(torch.tensor([3, 0]), tokens), tokens), "a class for each sequence"
    assert counted_positions(torch.tensor([-100, 0]), tokens).tolist() == [[False, False], [True, False]]
    assert counted_positions(torch.tensor([[3, -100], [0, 1]]), tokens).tolist() == [[True, False], [True, False]]
    pixels = torch.tensor([[[3, -100]], [[0, 1]]])
    assert counted_positions(pixels, tokens).tolist() == [[[True, False]], [[True, True]]], "those of the outputs"
    assert counted_positions(torch.zeros(2, 3), tokens) is tokens and counted_positions(None, tokens) is tokens
    assert counted_positions(None, torch.ones(2, 2, dtype=torch.bool)) is None


def test_means_are_weighted_and_those_of_nothing_are_zero() -> None:
    found = torch.tensor([1.0, 5.0, torch.inf])
    assert mean_over(found, torch.tensor([0.5, 0.25, 0])).item() == pytest.approx((0.5 + 1.25) / 0.75)
    assert mean_over(found, torch.zeros(3, dtype=torch.bool)).item() == 0
    with pytest.raises(ValueError, match="shape"):
        mean_over(found, torch.ones(2))


def test_values_are_the_mean_over_the_positions_that_count() -> None:
    student, teacher = torch.zeros(1, 1, 3), torch.tensor([[[1.0, 2.0, 30.0]]])
    assert values(student, teacher, counted=torch.tensor([[True, True, False]])).item() == pytest.approx(2.5)


def test_outputs_whose_positions_are_not_those_of_the_labels_count_in_full() -> None:
    student, teacher = torch.zeros(1, 2, 3, 3), torch.ones(1, 2, 3, 3)
    assert values(student, teacher, counted=torch.tensor([[True, False]])).item() == pytest.approx(1)
