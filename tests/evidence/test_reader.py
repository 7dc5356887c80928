"""Batches as they are read for graphs: the same for the same seed, and what is said where they can't be."""

import pytest
import torch
from torch import nn

from penjing.data import Data
from penjing.errors import PenjingError
from penjing.evidence.reader import flat_batches, part_batches, seeded_batches
from penjing.graph import capture
from penjing.tasks import Classification

CPU = torch.device("cpu")


class Shuffled:
    """Draws its order from PyTorch's global generator, and adds the epoch that it was told."""

    def __init__(self) -> None:
        self.epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        for number in torch.randperm(5).tolist():
            yield torch.full((2, 3), float(number + 10 * self.epoch)), torch.zeros(2, dtype=torch.long)


class Undecided(Classification):
    """A task that can't split its second batch."""

    def split(self, batch):
        if float(batch[0].sum()) == 1.0:
            raise KeyError("label")
        return super().split(batch)


def numbers(batches):
    return [float(inputs[0][0, 0]) for inputs, _ in batches]


def test_the_same_seed_and_epoch_give_the_same_batches_and_others_give_others():
    data = Data(Shuffled(), None, None, Classification(2))
    read = {
        (seed, epoch): numbers(seeded_batches(data, "train", 5, seed, CPU, epoch))
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert all(
        numbers(seeded_batches(data, "train", 5, seed, CPU, epoch)) == found for (seed, epoch), found in read.items()
    )
    assert all(sorted(found) == [10 * epoch + n for n in range(5)] for (_, epoch), found in read.items())
    assert read[0, 0] != read[1, 0]


def test_reading_leaves_the_callers_random_numbers_alone_and_stops_at_the_count():
    data = Data(Shuffled(), None, None, Classification(2))
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    assert len(numbers(seeded_batches(data, "train", 2, 0, CPU))) == 2
    assert torch.equal(torch.rand(1), expected)


def test_data_without_batches_are_an_error():
    with pytest.raises(PenjingError, match="has no batches"):
        list(seeded_batches(Data([], None, None, Classification(2)), "train", 2, 0, CPU))


@pytest.mark.parametrize("part", ["train", "calibration"])
def test_a_batch_that_the_task_cannot_split_is_named_with_its_part(part):
    batches = [(torch.zeros(1, 3), torch.zeros(1)), (torch.ones(1, 3) / 3, torch.zeros(1))]
    data = Data(batches, batches, None, Undecided(2))
    with pytest.raises(PenjingError, match=rf"^data\.{part}, asked for batch 2, raised KeyError: 'label'"):
        list(part_batches(data, part))


def test_labels_behind_the_inputs_are_left_out_and_inputs_keep_their_values():
    graph = capture(nn.Linear(3, 2), torch.randn(2, 3))
    batches = [(torch.randn(4, 3), torch.zeros(4)), (torch.randn(1, 3), torch.zeros(1))]
    for data in (batches, [x for x, _ in batches], Data(None, batches, None, Classification(2))):
        found = list(flat_batches(graph, data))
        assert all(
            len(inputs) == 1 and torch.equal(inputs[0], x) for inputs, (x, _) in zip(found, batches, strict=True)
        )
