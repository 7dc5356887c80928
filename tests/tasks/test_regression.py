"""Values per sample: the metrics are scikit-learn's, errors are negative inside and shown without the sign."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from penjing.errors import PenjingError
from penjing.tasks import Regression, Task, evaluate, metric_words, shown_metric

ORACLES = {
    "r2": r2_score,
    "mae": lambda targets, given: -mean_absolute_error(targets, given),
    "rmse": lambda targets, given: -(torch.nn.functional.mse_loss(given, targets) ** 0.5).item(),
}


def values(columns, seed=0, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    targets = shift + torch.randn(60, *columns, generator=generator, dtype=torch.float64)
    return targets, targets + 0.3 * torch.randn(60, *columns, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", ORACLES)
@pytest.mark.parametrize("columns", [(), (1,), (3,)])
@pytest.mark.parametrize("shift", [0.0, 1000.0])
def test_the_metric_over_batches_is_that_of_scikit_learn(name, columns, shift):
    targets, answers = values(columns, shift=shift)
    metric = Regression(name).metric()
    for at in range(0, 60, 16):
        metric.update(answers[at : at + 16], targets[at : at + 16])
    assert float(metric.compute()) == pytest.approx(ORACLES[name](targets, answers), rel=1e-6)


def test_rmse_is_also_that_of_scikit_learn_in_one_column():
    targets, answers = values(())
    metric = Regression("rmse").metric()
    metric.update(answers, targets)
    assert float(metric.compute()) == pytest.approx(-root_mean_squared_error(targets, answers))


@given(st.sampled_from(["mae", "rmse"]), st.integers(0, 50))
def test_no_other_constant_answer_is_better_than_the_best(name, seed):
    task, (targets, _) = Regression(name), values((), seed)
    best = task.constant([targets[:20], targets[20:]])
    for answer in torch.linspace(-1, 1, 21, dtype=torch.float64):
        metric = task.metric()
        metric.update(answer.expand(60), targets)
        assert float(metric.compute()) <= best + 1e-9
    assert Regression().constant([targets]) == 0.0


def test_a_column_and_a_vector_are_the_same_and_other_shapes_are_refused():
    task, (targets, answers) = Regression(), values(())
    assert float(task.loss(answers[:, None], targets)) == pytest.approx(float(task.loss(answers, targets)))
    for outputs in (answers[:, None].expand(-1, 2), answers[:30]):
        with pytest.raises(PenjingError, match="same shape"):
            task.loss(outputs, targets)


def test_errors_are_shown_without_the_sign_by_which_higher_is_better():
    x = torch.zeros(4, 1)
    task = Regression("mae")
    assert isinstance(task, Task) and task.lower_is_better and not Regression().lower_is_better
    value = evaluate(lambda given: given + 0.25, [(x, x)], task)
    assert value == -0.25 and shown_metric(task, value) == 0.25
    assert metric_words(task, value) == "mean absolute error 0.2500" and metric_words(Regression(), 0.5) == "R² 0.5000"


def test_names_that_are_unknown_are_refused_with_the_nearest():
    with pytest.raises(PenjingError, match=r"Did you mean 'rmse'"):
        Regression("rmsee")
    with pytest.raises(PenjingError, match=r"Unknown loss 'mae'"):
        Regression(loss="mae")
