"""Trackers: TensorBoard and MLflow get what `report` gets."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from torch import nn
from training_fakes import Net, data

from penjing.errors import PenjingError
from penjing.training import recover

PLAIN: dict[str, Any] = {"precision": "float32", "channels_last": False, "progress": False, "lr": 0.1}
LOGGED = ("loss", "losses/task", "losses/guidance", "lr", "progress")


def numbers(epochs: list[dict[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """Returns what each line should show: steps and values."""
    flat = [{**epoch, **{f"losses/{name}": value for name, value in epoch["losses"].items()}} for epoch in epochs]
    return {name: [(epoch["step"], epoch[name]) for epoch in flat] for name in LOGGED}


def trained(tracker: str, path: Path) -> list[dict[str, Any]]:
    """Trains with a tracker for three epochs, with a stop in the second; returns what was reported."""
    epochs: list[dict[str, Any]] = []
    how = {"epochs": 3, "report": epochs.append, "trackers": (tracker,), "checkpoint": path, **PLAIN}

    def fail(graph: nn.Module, share: float) -> None:
        if share > 0.5:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        recover(Net(), data(), Net(1), callbacks=[fail], **how)
    recover(Net(), data(), Net(1), **how)
    assert [epoch["step"] for epoch in epochs] == [10, 20, 30]
    return epochs


def test_tensorboard_draws_every_number_over_the_steps_in_one_line(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = tmp_path / "runs" / "student"
    expected = numbers(trained(f"tensorboard:{folder}", tmp_path / "run.pt"))
    found = EventAccumulator(str(folder)).Reload()
    for name, points in expected.items():
        scalars = found.Scalars(name)
        assert [one.step for one in scalars] == [step for step, _ in points]
        assert [one.value for one in scalars] == pytest.approx([value for _, value in points])
    assert "metric" not in found.Tags()["scalars"], "nothing was judged"


def test_mlflow_gets_the_numbers_and_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # a database would need another package
    mlflow.set_tracking_uri((tmp_path / "tracked").as_uri())
    expected = numbers(trained("mlflow:students", tmp_path / "run.pt"))
    client = mlflow.MlflowClient()
    (experiment,) = client.search_experiments(filter_string="name = 'students'")
    runs = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])
    assert mlflow.active_run() is None
    assert [run.data.params["goes_on"] for run in runs] == ["False", "True"]
    assert all(run.data.params["lr"] == "0.1" for run in runs)
    for name, points in expected.items():
        kept = [(one.step, one.value) for run in runs for one in client.get_metric_history(run.info.run_id, name)]
        assert kept == [(step, pytest.approx(value)) for step, value in points]


@pytest.mark.parametrize(
    ("trackers", "words"),
    [
        (("tensorbord",), "Did you mean 'tensorboard'"),
        (("tensorboard:",), "behind the colon"),
        ("tensorboard", "trackers='tensorboard': it must be names of trackers"),
        (("mlflow",), r"trackers='mlflow' needs a package that isn't installed: pip install mlflow"),
    ],
)
def test_a_tracker_that_there_is_not_is_said_before_training(
    trackers: Any, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "mlflow" else real(name))
    with pytest.raises(PenjingError, match=words):
        recover(Net(), data(), epochs=0, trackers=trackers)
