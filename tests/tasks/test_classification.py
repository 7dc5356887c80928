import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import accuracy_score

from penjing.errors import PenjingError
from penjing.tasks import Classification, Task, Unlabelled, first_tensor

LOGITS = torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
TARGETS = torch.randint(0, 5, (20,), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("task", [Classification(), Classification(5), Unlabelled()])
def test_given_tasks_follow_the_protocol(task):
    assert isinstance(task, Task)


@pytest.mark.parametrize("classes", [None, 5])
def test_accuracy_over_batches_is_scikit_learns(classes):
    metric = Classification(classes).metric()
    metric.update(LOGITS[:13], TARGETS[:13])
    metric.update(LOGITS[13:], TARGETS[13:])
    assert float(metric.compute()) == pytest.approx(accuracy_score(TARGETS, LOGITS.argmax(1)))
    metric.reset()
    metric.update(F.one_hot(TARGETS, 5).float(), TARGETS)
    assert float(metric.compute()) == 1.0


def test_loss_is_cross_entropy_and_has_gradients():
    logits = LOGITS.clone().requires_grad_()
    loss = Classification(label_smoothing=0.1).loss(logits, TARGETS.int())
    smooth = F.one_hot(TARGETS, 5) * 0.9 + 0.1 / 5
    torch.testing.assert_close(loss, -(smooth * LOGITS.log_softmax(1)).sum(1).mean())
    loss.backward()
    assert logits.grad.abs().sum() > 0


def test_dense_predictions_count_every_pixel():
    logits, targets = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 4, 4))
    metric = Classification().metric()
    metric.update(logits, targets)
    assert float(metric.compute()) == pytest.approx(float((logits.argmax(1) == targets).float().mean()))


@pytest.mark.parametrize("outputs", [LOGITS, LOGITS.numpy(), {"logits": LOGITS, "aux": 1}, (None, [LOGITS]), [LOGITS]])
def test_the_first_tensor_of_any_output_is_the_logits(outputs):
    torch.testing.assert_close(first_tensor(outputs), LOGITS)
    metric = Classification().metric()
    metric.update(outputs, TARGETS)


def test_outputs_without_a_tensor_are_an_error():
    with pytest.raises(PenjingError, match="no tensor"):
        first_tensor({"loss": 1.0})


def test_split_knows_single_several_and_unlabelled_inputs():
    x, y = torch.zeros(2, 3), torch.zeros(2).long()
    split = Classification().split
    assert split((x, y)) == ((x,), y)
    assert split([x, y]) == ((x,), y)
    inputs, targets = split(((x, x), y))
    assert len(inputs) == 2 and targets is y
    assert split((x,)) == ((x,), None)
    assert split(x)[1] is None
    assert Unlabelled().split((x,)) == ((x,), None)
    assert len(Unlabelled().split([(x, x)])[0]) == 2


@pytest.mark.parametrize("batch", [{"x": 1}, (torch.zeros(1),) * 3, (torch.zeros(1), "cat"), np.zeros(3), ()])
def test_batches_of_another_form_are_described_in_the_error(batch):
    with pytest.raises(PenjingError, match="the loader gave"):
        Classification().split(batch)


def test_unlabelled_refuses_labels_losses_and_metrics():
    with pytest.raises(PenjingError, match="use Classification"):
        Unlabelled().split((torch.zeros(2, 3), torch.zeros(2)))
    with pytest.raises(PenjingError, match="no loss"):
        Unlabelled().loss(LOGITS, TARGETS)
    with pytest.raises(PenjingError, match="no metric"):
        Unlabelled().metric()


def test_more_classes_than_outputs_is_an_error_that_says_so():
    for use in (Classification().loss, Classification().metric().update):
        with pytest.raises(PenjingError, match=r"5 outputs.*from 5 to 5"):
            use(LOGITS, torch.full((20,), 5))


def test_targets_of_the_wrong_shape_or_kind_are_an_error():
    for targets in (TARGETS[:3], TARGETS.float(), F.one_hot(TARGETS)):
        with pytest.raises(PenjingError, match="class indices"):
            Classification().loss(LOGITS, targets)


def test_label_smoothing_is_a_share():
    with pytest.raises(PenjingError, match="label_smoothing"):
        Classification(label_smoothing=1.0)
