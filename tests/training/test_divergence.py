"""A training whose loss isn't finite any more: what it says, what it leaves, and how it goes on."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from training_fakes import Batches, Net, data, same_weights

from penjing.errors import PenjingError
from penjing.training import recover
from penjing.training.schedule import warmup_cosine

PLAIN: dict[str, Any] = {"precision": "float32", "channels_last": False, "progress": False, "epochs": 2}


def poison(graph: nn.Module, share: float) -> None:
    """Makes the weights useless behind step 12 of 20."""
    if share == 12 / 20:
        with torch.no_grad():
            graph.linear.weight.fill_(float("inf"))


def diverged(path: Path, **how: Any) -> Net:
    net = Net()
    with pytest.raises(PenjingError) as caught:
        recover(net, data(), checkpoint=path, callbacks=[poison], **PLAIN, **{"lr": 0.1, **how})
    told = str(caught.value)
    assert "The loss is nan" in told and "step 13 of 20 (epoch 2, batch 3)" in told
    assert "than lr=0.1, for example lr=0.02" in told and f"with {path}, training goes on behind step 10" in told
    return net


@pytest.mark.parametrize("same_object", [True, False])
def test_it_goes_on_from_the_checkpoint_at_a_lower_rate(
    tmp_path: Path, same_object: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, lines = tmp_path / "run.pt", list[str]()
    net = diverged(path)
    kept = Net()
    kept.load_state_dict(torch.load(path, weights_only=True)["model"])
    assert same_weights(net, kept), "the graph has the last good weights again"
    net = recover(net if same_object else Net(), data(), lr=0.02, checkpoint=path, log=lines.append, **PLAIN)
    assert lines[1] == "The training diverged behind step 12; it goes on from step 10 with lr=0.02."

    def lowered(progress: float, warmup: float) -> float:
        return warmup_cosine(progress, warmup) * (1.0 if progress < 0.5 else 0.2)

    monkeypatch.setattr("penjing.training.run.warmup_cosine", lowered)
    expected = recover(Net(), data(), lr=0.1, **PLAIN)
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(net.state_dict()[name], value)


def test_a_run_at_a_lower_rate_is_resumed_like_any_other(tmp_path: Path) -> None:
    path, whole = tmp_path / "run.pt", tmp_path / "whole.pt"
    for file in (path, whole):
        diverged(file)
    expected = recover(Net(), data(), lr=0.02, checkpoint=whole, **PLAIN)

    def fail(graph: nn.Module, share: float) -> None:
        if share > 0.7:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        recover(Net(), data(), lr=0.02, checkpoint=path, callbacks=[fail], save_every=0.0, **PLAIN)
    assert same_weights(recover(Net(), data(), lr=0.02, checkpoint=path, **PLAIN), expected)


def test_a_rate_that_diverged_too_is_not_gone_back_to(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    diverged(path)
    with pytest.raises(PenjingError, match=r"lr=0\.02, for example lr=0\.004"):
        recover(Net(), data(), lr=0.02, checkpoint=path, callbacks=[poison], **PLAIN)
    for lr in (0.05, 0.2):
        with pytest.raises(PenjingError, match=f"other settings .*is {lr}"):
            recover(Net(), data(), lr=lr, checkpoint=path, **PLAIN)
    recover(Net(), data(), lr=0.004, checkpoint=path, **PLAIN)


def test_other_settings_are_refused_as_ever(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    diverged(path)
    with pytest.raises(PenjingError, match=r"other settings \(momentum was 0.9, is 0.5\)"):
        recover(Net(), data(), lr=0.02, momentum=0.5, checkpoint=path, **PLAIN)


def test_where_the_checkpoint_s_own_weights_diverge_the_training_starts_anew(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    with pytest.raises(PenjingError, match=r"lead there at once\. Delete that file to start anew"):
        recover(Net(), data(), lr=0.1, checkpoint=path, callbacks=[poison], save_every=0.0, **PLAIN)


def test_without_a_checkpoint_the_lower_rate_starts_anew() -> None:
    with pytest.raises(PenjingError, match=r"lr=0.02. No checkpoint= was given, so training must start anew"):
        recover(Net(), data(), lr=0.1, callbacks=[poison], **PLAIN)


def test_no_rate_is_blamed_for_values_that_were_never_finite(tmp_path: Path) -> None:
    broken = Batches()
    broken.x[:] = float("nan")
    with pytest.raises(PenjingError, match=r"step 1 of 20 \(epoch 1, batch 1\). No step had been taken"):
        recover(Net(), data(broken), lr=0.1, checkpoint=tmp_path / "run.pt", **PLAIN)
