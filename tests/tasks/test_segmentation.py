"""Masks: what counts for nothing, and masks that don't fit the outputs."""

import pytest
import torch

from penjing.errors import PenjingError
from penjing.tasks import Segmentation, evaluate, metric_words


def logits_of(classes, number=3):
    return torch.nn.functional.one_hot(classes, number).movedim(-1, 1).float()


def test_ignored_pixels_count_neither_in_the_loss_nor_in_the_metric():
    masks = torch.tensor([[[0, 1, 2], [255, 255, 255]]])
    answers = torch.tensor([[[0, 1, 1], [2, 0, 1]]])
    task = Segmentation(3, ignore_index=255)
    (images,), targets = task.split((torch.zeros(1, 3, 2, 3), masks))
    assert images.shape == (1, 3, 2, 3)
    outputs = logits_of(answers)
    metric = task.metric()
    metric.update(outputs, targets)
    assert float(metric.compute()) == pytest.approx((1 + 1 / 2 + 0) / 3)
    alone = Segmentation(3).loss(outputs[:, :, :1], targets[:, :1])
    assert float(task.loss(outputs, targets)) == pytest.approx(float(alone))


def test_a_batch_in_which_nothing_counts_has_no_loss():
    outputs = torch.randn(1, 3, 2, 2, requires_grad=True)
    loss = Segmentation(3).loss(outputs, torch.full((1, 2, 2), -100))
    loss.backward()
    assert float(loss.detach()) == 0 and bool((outputs.grad == 0).all())


def test_classes_that_occur_nowhere_are_left_out_of_the_mean():
    masks = torch.tensor([[[0, 0], [1, 1]]])
    assert evaluate(lambda images: logits_of(masks, 5), [(torch.zeros(1, 1, 2, 2), masks)], Segmentation(5)) == 1.0


def test_pixels_without_an_answer_are_wrong():
    masks = torch.tensor([[[0, 0], [1, 1]]])
    outputs = torch.full((1, 2, 2, 2), torch.nan)
    task = Segmentation(2)
    assert evaluate(lambda images: outputs, [(torch.zeros(1, 1, 2, 2), masks)], task) == 0.0
    assert metric_words(task, 0.0) == "mean IoU 0.0000"


def test_the_best_constant_answer_is_the_class_whose_answer_everywhere_has_the_largest_mean():
    task, masks = Segmentation(3), torch.tensor([[[0, 0], [0, 1]]])
    values = []
    for number in range(3):
        metric = task.metric()
        metric.update(logits_of(torch.full_like(masks, number)), masks)
        values.append(float(metric.compute()))
    assert task.constant([masks]) == pytest.approx(max(values))


@pytest.mark.parametrize(
    ("outputs", "masks", "message"),
    [
        ((1, 3, 4, 4), torch.zeros(1, 8, 8, dtype=torch.long), r"\(1, 3, 4, 4\).*\(1, 4, 4\).*\(1, 8, 8\): resize"),
        ((1, 3, 4, 4), torch.zeros(1, 1, 4, 4, dtype=torch.long), r"\(1, 1, 4, 4\): take.*squeeze\(1\)"),
        ((1, 2, 4, 4), torch.zeros(1, 4, 4, dtype=torch.long), r"needs logits \(N, 3, height, width\).*\(1, 2, 4, 4\)"),
        ((1, 3, 4, 4), torch.zeros(1, 4, 4), r"integer class indices.*float32"),
        ((1, 3, 2, 2), torch.tensor([[[0, 0], [1, 255]]]), r"from 0 to 2.*sample 0.*255 at \(1, 1\).*ignore_index=255"),
    ],
)
def test_masks_that_do_not_fit_are_refused_with_what_to_do(outputs, masks, message):
    task = Segmentation(3)
    for refused in (task.loss, task.metric().update):
        with pytest.raises(PenjingError, match=message):
            refused(torch.randn(outputs), masks)
