"""Sequences of different lengths, padded: an encoder as PyTorch builds it learns from a deeper one, wherever batches end."""

import copy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from penjing.data import Data
from penjing.distillation import signals
from penjing.errors import PenjingError
from penjing.graph import Graph, capture
from penjing.targets import lower, session
from penjing.tasks import Classification, Task, Unlabelled
from penjing.training import recover

PAD, CLASSES, LONGEST = 0, 3, 9


class Encoder(nn.Module):
    """Token ids in, one class for each sequence out; padded positions are masked in every attention."""

    def __init__(self, layers: int, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.tokens, self.positions = nn.Embedding(12, 8, padding_idx=PAD), nn.Embedding(LONGEST, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, "gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1], device=tokens.device))
        return self.head(self.encoder(x, src_key_padding_mask=tokens == PAD)[:, 0])


def batches(length: int, labelled: bool = True) -> list[tuple[Tensor, ...]]:
    """Returns sequences of 2 to 6 tokens, which are the same whatever the length that they are padded to."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, 12, (32, 6), generator=generator)
    ids.masked_fill_(torch.arange(6) >= torch.randint(2, 7, (32, 1), generator=generator), PAD)
    long = nn.functional.pad(ids, (0, length - 6), value=PAD)
    return [(rows, rows[:, 0] % CLASSES) if labelled else (rows,) for rows in long.split(8)]


@cache
def pair() -> tuple[Graph, Graph]:
    """Returns a student and a deeper teacher."""
    example = torch.tensor([[5, 4, 3, PAD], [1, 11, PAD, PAD]])
    student, teacher = (capture(Encoder(depth, depth), example, dynamic={"tokens": (0, 1)}) for depth in (1, 2))
    return student, teacher


def trained(signal: str, given: Any, task: Task) -> dict[str, Tensor]:
    """Returns the student's weights after two epochs with this signal alone."""
    student, teacher = copy.deepcopy(pair()[0]), pair()[1]
    data = Data(train=given, calibration=None, validation=None, task=task)
    recover(
        student, data, teacher, 2, signal=signal, distill_weight=1.0, lr=0.05, precision="float32", channels_last=False,
        progress=False,
    )  # fmt: skip
    return dict(student.named_parameters())


INSIDE = [name for name, entry in signals.items() if entry.function.taps]


@pytest.mark.parametrize("signal", INSIDE)
def test_more_padding_changes_nothing_of_what_a_student_learns(signal: str) -> None:
    task = Classification(CLASSES, padding=PAD)
    short, long = (trained(signal, batches(length), task) for length in (6, LONGEST))
    assert any(not torch.equal(one, short[name]) for name, one in pair()[0].named_parameters())
    for name, one in short.items():
        torch.testing.assert_close(long[name], one, rtol=1e-4, atol=1e-5, msg=lambda told, name=name: f"{name}: {told}")


def test_padded_positions_count_where_the_task_names_no_padding() -> None:
    short, long = (trained("transformer", batches(length), Classification(CLASSES)) for length in (6, LONGEST))
    assert any(not torch.allclose(long[name], one, rtol=1e-3, atol=1e-4) for name, one in short.items())


def test_unlabelled_sequences_have_padding_too() -> None:
    short, long = (
        trained("transformer", batches(length, labelled=False), Unlabelled(padding=PAD)) for length in (6, LONGEST)
    )
    for name, one in short.items():
        torch.testing.assert_close(long[name], one, rtol=1e-4, atol=1e-5)


def test_the_lowered_student_masks_what_is_padded_at_any_length(tmp_path: Path) -> None:
    student = pair()[0]
    run = session(lower(student, path=tmp_path / "student.onnx"))
    short, long = batches(6, labelled=False)[0][0], batches(LONGEST, labelled=False)[0][0]
    torch.testing.assert_close(run(long), student(short).detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(run(short[:1, :2]), student(short[:1, :2]).detach(), rtol=1e-4, atol=1e-5)


def test_images_have_no_padding_id() -> None:
    task = Classification(padding=PAD)
    with pytest.raises(PenjingError, match=r"padding=0 .*Tensor\(2, 3, 4, 4\) torch.float32.*Leave padding out"):
        task.counted((torch.zeros(2, 3, 4, 4),))
    with pytest.raises(PenjingError, match="padding="):
        Classification(padding=0.5)  # type: ignore[arg-type]
    with pytest.raises(PenjingError, match="padding="):
        Unlabelled(padding="[PAD]")  # type: ignore[arg-type]
