"""The curves of training on the page."""

import math
from pathlib import Path

import pytest
import report_samples
from test_page import page

from penjing.report._training import curves

EPOCHS = [
    {"number": 1, "step": 10, "loss": 1.5, "metric": 0.5},
    {"number": 2, "step": 20, "loss": 0.5, "metric": 0.75},
    {"number": 3, "step": 30, "loss": 0.25, "metric": 0.7},
]


def test_loss_and_metric_have_a_curve_each(tmp_path: Path) -> None:
    made = report_samples.report(training_epochs=EPOCHS)
    loss, accuracy = curves(made)
    assert (loss.name, loss.last) == ("Loss", "0.250")
    assert (accuracy.name, accuracy.last) == ("Accuracy, validation", "70 %")
    heights = [point.y for point in accuracy.chart.points]
    assert heights[1] < heights[2] < heights[0], "up is better"
    assert [point.said for point in loss.chart.points] == ["epoch 1: 1.50", "epoch 2: 0.500", "epoch 3: 0.250"]
    assert "Training" in page(made, tmp_path).said("training")


def test_an_error_falls_as_people_read_it() -> None:
    epochs = [{"number": 1, "loss": 1.0, "metric": -3.0}, {"number": 2, "loss": 1.0, "metric": -1.5}]
    loss, error = curves(
        report_samples.report(training_epochs=epochs, metric_name="mean absolute error", lower_is_better=True)
    )
    assert [point.said for point in error.chart.points] == ["epoch 1: 3.00", "epoch 2: 1.50"]
    assert error.chart.points[0].y < error.chart.points[1].y
    assert len({point.y for point in loss.chart.points}) == 1, "a loss that stays is a level line"


@pytest.mark.parametrize(
    "epochs",
    [[], EPOCHS[:1], [{"number": 1, "loss": None}, {"number": 2, "loss": math.inf}], [{"number": 4, "loss": 1.0}] * 2],
)
def test_fewer_than_two_epochs_make_no_curve(epochs) -> None:
    assert curves(report_samples.report(training_epochs=epochs)) == []
