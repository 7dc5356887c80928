"""Every task that is registered: its metric is that of a direct computation, its loss teaches, and a teacher can be learned from.

Each comes with a tiny network and samples; a DataLoader gives batches of four of the eleven, so that the last one is odd.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score, jaccard_score
from torch import nn
from torch.utils.data import DataLoader, default_collate

import penjing as pj
from penjing.distillation import Mean
from penjing.errors import PenjingError
from penjing.targets import session
from penjing.tasks import Task, evaluate, likeness, parts_of, tasks

SAMPLES, BATCH = 11, 4


@dataclass(frozen=True)
class Example:
    """A task with a network, samples, and what its metric must be.

    Attributes:
        task: the task.
        network: takes the inputs of a batch.
        samples: as a dataset gives them.
        direct: from the outputs and the targets of all samples in one batch to the metric.
        wrong: outputs that the task must refuse, from right ones.
        collate: makes a batch of samples.
        dynamic: axes of inputs whose length differs, as `capture` takes them.
    """

    task: Any
    network: nn.Module
    samples: list[Any]
    direct: Callable[[Any, Any], float]
    wrong: Callable[[Any], Any]
    collate: Callable[[list[Any]], Any] = default_collate
    dynamic: Any = None


def images(*size):
    return torch.randn(SAMPLES, 3, *size, generator=torch.Generator().manual_seed(1))


def numbers(most, *size):
    return torch.randint(0, most, (SAMPLES, *size), generator=torch.Generator().manual_seed(2))


def classification():
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 5))
    samples = list(zip(images(4, 4), numbers(5), strict=True))

    def direct(outputs, targets):
        return (outputs.argmax(1) == targets).double().mean().item()

    return Example(pj.tasks.Classification(5), network, samples, direct, lambda outputs: outputs[:, :3])


def regression():
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    samples = list(zip(images(4, 4), images(2, 1)[:, 0, :, 0], strict=True))

    def direct(outputs, targets):
        return -(outputs - targets).abs().mean().item()

    return Example(pj.tasks.Regression("mae"), network, samples, direct, lambda outputs: outputs[:, :1])


def multi_label():
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    samples = list(zip(images(4, 4), numbers(2, 3), strict=True))

    def direct(outputs, targets):
        return float(average_precision_score(targets.numpy(), outputs.detach().numpy(), average="macro"))

    return Example(pj.tasks.MultiLabel(3), network, samples, direct, lambda outputs: outputs[:, :2])


def segmentation():
    network = nn.Conv2d(3, 4, 3, padding=1)
    masks = numbers(4, 6, 5)
    masks[:, :2] = 255

    def direct(outputs, targets):
        kept = targets != -100
        return float(jaccard_score(targets[kept].numpy(), outputs.argmax(1)[kept].numpy(), average="macro"))

    task = pj.tasks.Segmentation(4, ignore_index=255)
    return Example(
        task, network, list(zip(images(6, 5), masks, strict=True)), direct, lambda outputs: outputs[:, :, 1:]
    )


class Tagger(nn.Module):
    """Token ids to logits of each token, or of the mean of those that aren't padded."""

    def __init__(self, classes, whole):
        super().__init__()
        self.tokens, self.head, self.whole = nn.Embedding(12, 8), nn.Linear(8, classes), whole

    def forward(self, ids):
        x = self.tokens(ids)
        kept = (ids != 0).unsqueeze(-1).float()
        return self.head((x * kept).sum(1) / kept.sum(1) if self.whole else x)


def texts():
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(1, 12, (2 + number % 5,), generator=generator) for number in range(SAMPLES)]


def padded(samples):
    """Pads a batch to its own longest sequence."""
    ids, targets = zip(*samples, strict=True)
    if targets[0].ndim:
        return nn.utils.rnn.pad_sequence(ids, True), nn.utils.rnn.pad_sequence(targets, True, 3.0)
    return nn.utils.rnn.pad_sequence(ids, True), torch.stack(targets)


def sequence_classification():
    samples = [(ids, ids[0] % 3) for ids in texts()]

    def direct(outputs, targets):
        return (outputs.argmax(1) == targets).double().mean().item()

    task = pj.tasks.SequenceClassification(3, padding=0)
    return Example(task, Tagger(3, True), samples, direct, lambda outputs: outputs[:, :2], padded, {"ids": (1,)})


def token_classification():
    samples = [(ids, ids % 4) for ids in texts()]

    def direct(outputs, targets):
        kept = targets != -100
        return float(
            f1_score(targets[kept].numpy(), outputs.argmax(2)[kept].numpy(), labels=[1, 2, 3], average="micro")
        )

    task = pj.tasks.TokenClassification(4, metric="f1", padding=0)
    return Example(task, Tagger(4, False), samples, direct, lambda outputs: outputs[:, :-1], padded, {"ids": (1,)})


class Listener(nn.Module):
    """Two frames in, one step of logits out."""

    def __init__(self):
        super().__init__()
        self.near = nn.Conv1d(3, 6, 2, stride=2)

    def forward(self, x):
        return self.near(x).transpose(1, 2)


def spoken(samples):
    frames, tokens, lengths = zip(*samples, strict=True)
    return torch.stack(frames), nn.utils.rnn.pad_sequence(tokens, True, -100), torch.tensor(lengths)


def ctc():
    tokens = [1 + numbers(5, 4)[number, : 1 + number % 4] for number in range(SAMPLES)]
    samples = list(zip(images(20)[:, :, :], tokens, [20 - number % 5 for number in range(SAMPLES)], strict=True))

    def direct(outputs, targets):
        wrong, words = 0, 0
        for steps, wanted, length in zip(outputs.argmax(2), *targets, strict=True):
            said = [int(one) for one in steps[: (int(length) + 1) // 2].unique_consecutive() if one != 0]
            right = [int(one) for one in wanted if one != -100]
            row = list(range(len(right) + 1))
            for at, one in enumerate(said, 1):
                last, row[0] = row[:], at
                for to, other in enumerate(right, 1):
                    row[to] = min(last[to] + 1, row[to - 1] + 1, last[to - 1] + (one != other))
            wrong, words = wrong + row[-1], words + len(right)
        return -wrong / words

    return Example(pj.tasks.CTC(subsampling=2), Listener(), samples, direct, lambda outputs: outputs[:, 0], spoken)


class Detector(nn.Module):
    """Of each image a box, corner and size, and two logits."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(48, 6)
        with torch.no_grad():
            self.head.bias.copy_(torch.tensor([4.0, 4.0, 9.0, 9.0, 0.0, 0.0]))

    def forward(self, x):
        return self.head(x.flatten(1))


def detection():
    targets = []
    for number in range(SAMPLES):
        rows = torch.tensor([[4.0, 4.0, 13.0, 13.0 + number % 3], [30.0, 30.0, 40.0, 40.0]])[: 1 + number % 2]
        targets.append({"boxes": rows, "labels": torch.tensor([number % 2, 0])[: len(rows)]})

    def decode(outputs):
        corners = torch.cat([outputs[:, :2], outputs[:, :2] + outputs[:, 2:4]], 1)
        best = outputs[:, 4:].softmax(1).max(1)
        return [
            {"boxes": corners[at : at + 1], "scores": best.values[at : at + 1], "labels": best.indices[at : at + 1]}
            for at in range(len(outputs))
        ]

    def loss(outputs, targets):
        wanted = torch.stack([one["boxes"][0] for one in targets])
        corners = torch.cat([outputs[:, :2], outputs[:, :2] + outputs[:, 2:4]], 1)
        labels = torch.stack([one["labels"][0] for one in targets])
        return nn.functional.smooth_l1_loss(corners, wanted) + nn.functional.cross_entropy(outputs[:, 4:], labels)

    def direct(outputs, targets):
        """One answer an image: precision over recall of each class at each threshold, read at 101 recalls."""
        values = []
        found = decode(outputs)
        for number in (0, 1):
            wanted = sum(int((one["labels"] == number).sum()) for one in targets)
            ranked = sorted((at for at in range(SAMPLES) if int(found[at]["labels"]) == number),
                            key=lambda at: -float(found[at]["scores"]))  # fmt: skip
            for threshold in np.linspace(0.5, 0.95, 10):
                right, curve = 0, []
                for rank, at in enumerate(ranked, 1):
                    one = targets[at]
                    best = max(
                        (overlap(found[at]["boxes"][0], row) for row in one["boxes"][one["labels"] == number]),
                        default=0,
                    )
                    right += best >= threshold
                    curve.append((right / wanted, right / rank))
                points = [max((p for r, p in curve if r >= recall), default=0) for recall in np.linspace(0, 1, 101)]
                values.append(np.mean(points))
        return float(np.mean(values))

    task = pj.tasks.Detection(loss, decode, classes=2)
    samples = list(zip(0.1 * images(4, 4), targets, strict=True))
    return Example(task, Detector(), samples, direct, lambda outputs: outputs[:0], listed)


def overlap(one, other):
    width, height = (float(min(one[2 + at], other[2 + at]) - max(one[at], other[at])) for at in (0, 1))
    shared = max(width, 0) * max(height, 0)
    areas = [float((box[2] - box[0]) * (box[3] - box[1])) for box in (one, other)]
    return shared / (sum(areas) - shared)


def listed(samples):
    images, targets = zip(*samples, strict=True)
    return torch.stack(images), list(targets)


class TwoHeads(nn.Module):
    """A class and two values of each image, in a dictionary."""

    def __init__(self):
        super().__init__()
        self.kind, self.place = nn.Linear(48, 5), nn.Linear(48, 2)

    def forward(self, x):
        return {"place": self.place(x.flatten(1)), "kind": self.kind(x.flatten(1)), "features": x.flatten(1)}


def multi_task():
    heads = {"kind": pj.tasks.Classification(5), "place": pj.tasks.Regression("mae")}
    targets = [{"kind": kind, "place": place} for kind, place in zip(numbers(5), images(2, 1)[:, 0, :, 0], strict=True)]

    def direct(outputs, targets):
        return -(outputs["place"] - targets["place"]).abs().mean().item()

    task = pj.tasks.MultiTask(heads, headline="place", weights={"kind": 0.5})
    return Example(
        task,
        TwoHeads(),
        list(zip(images(4, 4), targets, strict=True)),
        direct,
        lambda outputs: {"kind": outputs["kind"]},
    )


EXAMPLES = {
    "CTC": ctc,
    "Classification": classification,
    "Detection": detection,
    "MultiLabel": multi_label,
    "MultiTask": multi_task,
    "Regression": regression,
    "Segmentation": segmentation,
    "SequenceClassification": sequence_classification,
    "TokenClassification": token_classification,
}


@pytest.fixture(params=sorted(EXAMPLES))
def example(request):
    torch.manual_seed(0)
    return EXAMPLES[request.param]()


def loader(example, size=BATCH):
    return DataLoader(example.samples, size, collate_fn=example.collate)


def whole(example):
    """Returns the inputs, targets and outputs of all samples in one batch."""
    inputs, targets = example.task.split(next(iter(loader(example, SAMPLES))))
    with torch.no_grad():
        return inputs, targets, example.network(*inputs)


def test_every_task_that_is_registered_has_an_example():
    assert set(EXAMPLES) == set(tasks)


def test_the_metric_over_batches_is_that_of_a_direct_computation(example):
    _, targets, outputs = whole(example)
    assert isinstance(example.task, Task)
    found = evaluate(example.network, loader(example), example.task)
    assert found == pytest.approx(example.direct(outputs, targets), rel=1e-5)
    assert evaluate(example.network, loader(example, SAMPLES), example.task) == pytest.approx(found, rel=1e-5)


def test_a_step_against_the_gradient_makes_the_loss_smaller(example):
    inputs, targets, _ = whole(example)
    losses = []
    for _ in range(2):
        loss = example.task.loss(example.network(*inputs), targets)
        losses.append(loss.item())
        example.network.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in example.network.parameters():
                parameter -= 1e-2 * parameter.grad / parameter.grad.norm().clamp(min=1e-6)
    assert losses[1] < losses[0]


def test_outputs_of_another_shape_are_refused_with_both_shapes(example):
    _, targets, outputs = whole(example)
    own = isinstance(example.task, pj.tasks.Detection)  # whose loss is the user's
    for refused in ([] if own else [example.task.loss]) + [example.task.metric().update]:
        with pytest.raises(PenjingError, match=r"needs|has.*outputs"):
            refused(example.wrong(outputs), targets)


def test_a_network_that_answers_nothing_is_no_better_than_the_best_constant(example):
    _, targets, outputs = whole(example)
    nothing = torch.utils._pytree.tree_map(torch.zeros_like, outputs)
    metric = example.task.metric()
    metric.update(nothing, targets)
    constant = getattr(example.task, "constant", None)
    assert constant is None or float(metric.compute()) <= constant([targets]) + 1e-6


def test_two_networks_are_compared_in_the_form_that_the_task_says(example):
    assert likeness(example.network, example.network, loader(example), example.task).value == 1.0
    other = EXAMPLES[type(example.task).__name__]().network
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.neg_()
    assert likeness(example.network, other, loader(example), example.task).value < 0.9
    assert parts_of(example.task, whole(example)[2])


def test_a_student_comes_nearer_to_its_teacher_by_the_signal_that_suits_the_task(example):
    teacher, student = example.network, EXAMPLES[type(example.task).__name__]().network
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.mul_(0.1)
    batches = loader(example)
    data = pj.Data(batches, batches, batches, example.task)
    told = []
    pj.recover(
        student, data, teacher=teacher, epochs=6, lr=0.02, distill_weight=1.0, optimizer="adamw", precision="float32",
        channels_last=False, progress=False, report=told.append,
    )  # fmt: skip
    assert told[-1]["losses"]["guidance"] < told[0]["losses"]["guidance"]


def test_teachers_that_agree_with_the_student_ask_nothing_of_it(example):
    batches = list(loader(example))
    data, told = pj.Data(batches, None, None, example.task), []
    student = copy.deepcopy(example.network)
    pj.recover(
        student, data, teacher=Mean(example.network, copy.deepcopy(example.network)), epochs=1, lr=1e-9,
        precision="float32", channels_last=False, progress=False, report=told.append,
    )  # fmt: skip
    assert told[0]["losses"]["guidance"] == pytest.approx(0, abs=1e-5) and told[0]["losses"]["task"] > 0


def test_a_quantised_network_is_judged_and_explained(example):
    inputs, _ = example.task.split(next(iter(loader(example))))
    batches = list(loader(example))
    data = pj.Data(batches, batches, batches, example.task)
    graph = pj.capture(example.network.eval(), inputs, dynamic=example.dynamic)
    small = pj.quantize(graph, data)
    found = pj.explain(graph, small, data)
    assert found.metric_name == example.task.metric_name and found.samples == SAMPLES
    assert found.change is not None or found.missing


def test_the_file_for_the_device_is_judged_as_the_graph_is(example, tmp_path):
    batches = list(loader(example))
    inputs, _ = example.task.split(batches[0])
    graph = pj.capture(example.network.eval(), inputs, dynamic=example.dynamic)
    run = session(pj.lower(graph, path=tmp_path / "model.onnx"))
    assert evaluate(run, batches, example.task) == pytest.approx(evaluate(graph, batches, example.task), abs=1e-6)
    assert likeness(graph, run, batches, example.task).value > 0.999
