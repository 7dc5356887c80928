"""What is said where several processes can't train together, or one of them is gone."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from penjing.errors import PenjingError
from penjing.training import processes
from penjing.training.processes import accelerator, check_agreement, together

TWO = SimpleNamespace(num_processes=2, is_main_process=True)
FILE = Path("run.checkpoint")
GONE = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:48050."


@pytest.fixture
def of_two(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Lets this process be the first of two; afterwards signals do what they did."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(processes, "accelerator", lambda: TWO)
    yield
    signal.signal(signal.SIGTERM, before)


def test_processes_that_would_each_train_alone_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert accelerator().num_processes == 1
    for name, value in {"WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(PenjingError, match=r"one of 2 processes.*ACCELERATE_USE_CPU=true"):
        accelerator()


@pytest.mark.parametrize("found", [[None, 10], [20, 10]])
def test_processes_that_find_different_checkpoints_are_refused(
    found: list[int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "gather_object", lambda given: found)
    with pytest.raises(PenjingError, match=r"run\.checkpoint.*step 10.*share"):
        check_agreement(TWO, FILE, found[0])
    check_agreement(TWO, None, None)
    check_agreement(SimpleNamespace(num_processes=1), FILE, 3)
    monkeypatch.setattr(processes, "gather_object", lambda given: [10, 10])
    check_agreement(TWO, FILE, 10)


@pytest.mark.parametrize(
    "error", [RuntimeError(GONE), torch.distributed.DistBackendError("NCCL error")], ids=["gloo", "nccl"]
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_process_that_is_gone_is_told_in_whatever_call_it_was_missed(
    of_two: None, error: RuntimeError, wrapped: bool
) -> None:
    told: list[str] = []
    with (
        pytest.raises(PenjingError, match=r"Another process .* has ended.*run\.checkpoint .* goes on"),
        together(FILE, told.append),
    ):
        assert told == ["2 processes train together; each takes one of 2 batches."]
        if wrapped:
            raise PenjingError("The model can't take a batch") from error
        raise error
    os.kill(os.getpid(), signal.SIGTERM)  # the launcher's, which must not cut the message off


def test_a_process_that_the_launcher_stops_says_so(of_two: None) -> None:
    with (
        pytest.raises(PenjingError, match=r"The launcher stopped this process.*run\.checkpoint"),
        together(FILE, print),
    ):
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("error", [RuntimeError("shapes don't fit"), PenjingError("The loss is nan")])
def test_other_errors_pass_as_they_are(of_two: None, error: Exception) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(type(error)) as passed, together(None, print):
        raise error
    assert passed.value is error and signal.getsignal(signal.SIGTERM) is before


def test_a_single_process_keeps_its_errors_and_signals() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(RuntimeError, match="Connection closed"), together(FILE, print):
        assert signal.getsignal(signal.SIGTERM) is before
        raise RuntimeError(GONE)
