import pytest
import torch
from torch import nn

from penjing.errors import PenjingError
from penjing.tasks import Classification, Unlabelled, agreement, evaluate

X = torch.eye(6)
Y = torch.tensor([0, 1, 2, 3, 4, 0])  # the last one is wrong for the identity
BATCHES = [(X[:4], Y[:4]), (X[4:], Y[4:])]


def test_a_function_and_a_module_are_evaluated_alike():
    assert evaluate(lambda x: x, BATCHES, Classification()) == pytest.approx(5 / 6)
    assert evaluate(nn.Identity(), BATCHES, Classification()) == pytest.approx(5 / 6)
    assert evaluate(lambda x: {"logits": x.numpy()}, BATCHES, Classification()) == pytest.approx(5 / 6)


def test_a_module_is_evaluated_in_eval_mode_without_gradients_and_gets_its_mode_back():
    model = nn.Sequential(nn.Dropout(0.99), nn.Linear(6, 6), nn.BatchNorm1d(6)).train()
    before = model[2].running_mean.clone()
    modes = []
    model.register_forward_hook(lambda module, x, y: modes.append((module.training, y.requires_grad)))
    evaluate(model, BATCHES, Classification())
    assert modes == [(False, False)] * 2
    assert model.training and torch.equal(model[2].running_mean, before)


def test_limit_stops_after_the_batch_that_reaches_it():
    assert evaluate(lambda x: x, BATCHES, Classification(), limit=4) == 1.0
    assert evaluate(lambda x: x, BATCHES, Classification(), limit=5) == pytest.approx(5 / 6)


def test_without_labels_there_is_no_metric():
    assert evaluate(lambda x: x, [(X,)], Unlabelled()) is None
    assert evaluate(lambda x: x, [(X,)], Classification()) is None


def test_an_empty_loader_is_an_error():
    with pytest.raises(PenjingError, match="no batches"):
        evaluate(lambda x: x, [], Classification())
    with pytest.raises(PenjingError, match="no batches"):
        agreement(lambda x: x, lambda x: x, [], Unlabelled())


def test_agreement_is_the_share_of_equal_answers():
    assert agreement(lambda x: x, lambda x: 3 * x, BATCHES, Classification()) == 1.0
    assert agreement(lambda x: x, lambda x: x.roll(1, 1), BATCHES, Classification()) == 0.0
    constant = torch.tensor([9.0, 0, 0, 0, 0, 0])
    share = agreement(nn.Identity(), lambda x: (x + constant).numpy(), [(X,)], Unlabelled())
    assert share == pytest.approx(1 / 6)


def test_agreement_of_different_shapes_is_an_error():
    with pytest.raises(PenjingError, match="can't be compared"):
        agreement(lambda x: x, lambda x: x[:1], [(X,)], Unlabelled())
