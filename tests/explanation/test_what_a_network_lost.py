"""What a small network lost, told of networks whose every answer is known."""

import base64
import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import accuracy_score, balanced_accuracy_score, mean_absolute_error
from torch import nn
from torchmetrics import MeanAbsoluteError
from torchmetrics.classification import MulticlassAccuracy

import penjing as pj
from penjing.data import Preprocess
from penjing.errors import PenjingError

CLASSES = ("ant", "bee", "<cat>")
TARGETS = [0] * 40 + [1] * 12 + [2] * 8


def answers(wrong):
    """The right answers, but for those at some places."""
    return [(label + 1) % 3 if at in wrong else label for at, label in enumerate(TARGETS)]


def answering(given, confidence=0.9):
    """A network that looks its answers up: an input's first value is its number."""
    scores = torch.full((len(given), 3), (1 - confidence) / 2)
    scores[torch.arange(len(given)), torch.tensor(given)] = confidence
    return lambda x: scores[x.flatten(1)[:, 0].long()].log()


def samples(batch=16, shape=(), labelled=True, **more):
    numbers = torch.arange(len(TARGETS), dtype=torch.float32).reshape(-1, *[1] * max(1, len(shape)))
    inputs = numbers.expand(-1, *(shape or (2,)))
    targets = torch.tensor(TARGETS)
    batches = [
        (inputs[at : at + batch], targets[at : at + batch]) if labelled else (inputs[at : at + batch],)
        for at in range(0, len(TARGETS), batch)
    ]
    task = pj.tasks.Classification(3) if labelled else pj.tasks.Unlabelled()
    return pj.Data(None, None, batches, task, "insects", **({"classes": CLASSES} | more))


LOST, GAINED, OTHER = {41, 42, 43, 44, 45, 46, 47, 48}, {0}, {50}
BEFORE = answers(GAINED | OTHER)
AFTER = [0 if at in OTHER else answer for at, answer in enumerate(answers(LOST | OTHER))]


def told(data=None, before=None, after=None, **more):
    return pj.explain(before or answering(BEFORE), after or answering(AFTER, 0.7), data or samples(), **more)


def test_the_metric_and_its_change_are_those_of_scikit_learn_with_an_interval():
    found = told()
    before, after = accuracy_score(TARGETS, BEFORE), accuracy_score(TARGETS, AFTER)
    assert (found.before.value, found.after.value) == (pytest.approx(before), pytest.approx(after))
    assert found.change.value == pytest.approx(after - before)
    assert found.change.low < found.change.value < found.change.high < 0
    assert (found.samples, found.changed, found.lost, found.gained) == (60, 10, 8, 1)
    assert found.chance < 0.05


def test_the_class_that_pays_comes_first_and_is_told_apart_from_chance():
    bee, *others = told().classes
    assert (bee.name, bee.samples, bee.clear) == ("bee", 12, True)
    assert bee.change.value == pytest.approx(-8 / 12) and not any(one.clear for one in others)


def test_changed_samples_are_told_with_both_answers_the_lost_ones_first():
    found = told()
    assert [one.kind for one in found.shown] == ["lost"] * 8 + ["gained", "other"]
    assert {one.index for one in found.shown if one.kind == "lost"} == LOST
    first = found.shown[0]
    assert (first.before, first.after, first.label) == ("bee", "<cat>", "bee")
    assert (first.before_confidence, first.after_confidence) == (pytest.approx(0.9), pytest.approx(0.7))


def test_no_more_samples_are_shown_than_asked_for_and_these_are_the_surest_wrong_ones():
    given = answering(AFTER, 0.7)
    sure = torch.ones(len(TARGETS), 1)
    sure[44], sure[47] = 9, 5  # larger scores, more confidence
    found = told(after=lambda x: given(x) * sure[x[:, 0].long()], shown=2)
    assert [one.index for one in found.shown] == [44, 47] and found.changed == 10


@pytest.mark.parametrize("batch", [1, 7, 60])
def test_the_size_of_batches_changes_nothing(batch):
    assert told(samples(batch)) == told(samples(16))


def test_confidence_is_compared_with_accuracy():
    found = told()
    assert found.calibration_before.error == pytest.approx(abs(0.9 - accuracy_score(TARGETS, BEFORE)), abs=1e-6)
    assert found.calibration_after.error == pytest.approx(abs(0.7 - accuracy_score(TARGETS, AFTER)), abs=1e-6)
    (only,) = found.calibration_before.bins
    assert only.samples == 60 and only.confidence == pytest.approx(0.9)


def test_probabilities_are_taken_as_they_are():
    logits = told()
    before, after = answering(BEFORE), answering(AFTER, 0.7)
    found = told(before=lambda x: before(x).exp(), after=lambda x: after(x).exp())
    assert found.calibration_before.error == pytest.approx(logits.calibration_before.error, abs=1e-5)


def test_without_labels_answers_are_compared_and_it_is_said_what_can_not_be_told():
    found = told(samples(labelled=False))
    assert found.changed == 10 and {one.kind for one in found.shown} == {"changed"}
    assert found.before is None and found.classes == () and any("Without labels" in why for why in found.missing)


def test_a_network_that_answers_nothing_is_no_answer():
    found = told(after=lambda x: torch.full((len(x), 3), torch.nan))
    assert found.shown[0].after == "no answer" and found.after.value == 0.0


def test_images_are_shown_as_the_network_sees_them():
    preprocess = Preprocess("RGB", 8, (8, 8), (0.5,) * 3, (0.5,) * 3)
    first = told(samples(shape=(3, 8, 8), preprocess=preprocess)).shown[0]
    kind, _, content = first.image.partition(",")
    assert kind == "data:image/png;base64" and first.text is None
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))
    assert pixels.shape == (8, 8, 3) and (pixels == 255).all()  # large inputs are white


def test_texts_are_shown_as_the_user_says():
    words = samples(show=lambda numbers: f"sample <{int(numbers[0])}>")
    assert told(words).shown[0].text == "sample <41>"
    assert told().shown[0].text == "41 41"  # else the inputs' numbers
    with pytest.raises(PenjingError, match=r"data\.show must give a text or a PIL image"):
        told(replace(words, show=lambda numbers: 7))


def test_a_sample_that_the_users_function_can_not_show_is_told_as_such_and_costs_nothing_else():
    def show(numbers):
        if int(numbers[0]) == 41:
            raise ValueError("no such word")
        return "a word"

    texts = [one.text for one in told(samples(show=show)).shown]
    assert texts.count("a word") == len(texts) - 1 and "no such word" in next(one for one in texts if one != "a word")


def test_files_are_named():
    files = tuple((f"val/{at}.png", label) for at, label in enumerate(TARGETS))
    assert told(samples(validation_files=files)).shown[0].file == "val/41.png"


class MeanError:
    """A task of one's own: the negative mean absolute error of a value."""

    labelled, metric_name, answers = True, "minus mean absolute error", "values"

    class Negative(MeanAbsoluteError):
        def compute(self):
            return -super().compute()

    def split(self, batch):
        return (batch[0],), batch[1]

    def loss(self, outputs, targets):
        return (outputs - targets).abs().mean()

    def metric(self):
        return self.Negative()


def test_the_metric_of_any_task_has_an_interval_by_drawing_samples_again():
    generator = torch.Generator().manual_seed(0)
    x, noise = torch.randn(200, 1, generator=generator), 0.1 * torch.randn(200, 1, generator=generator)
    data = pj.Data(None, None, [(x[:80], x[:80]), (x[80:], x[80:])], MeanError())
    found = pj.explain(nn.Identity(), lambda given: given + noise[: len(given)], data)
    off = torch.cat([noise[:80], noise[:120]])
    assert found.before.value == 0 and found.after.value == pytest.approx(
        -mean_absolute_error(torch.zeros(200), off[:, 0])
    )
    spread = float(off.abs().std()) / 200**0.5  # the mean of 200 values varies by so much
    assert found.after.high - found.after.low == pytest.approx(2 * 1.96 * spread, rel=0.2)
    assert found.changed is None and any("several classes" in why for why in found.missing)


class Often(pj.tasks.Classification):
    """A class of one's own with another metric: the mean share of right answers over the classes."""

    metric_name = "balanced accuracy"

    def metric(self):
        return MulticlassAccuracy(3, average="macro")


def test_another_metric_of_a_classification_is_not_taken_for_the_accuracy():
    found = told(replace(samples(), task=Often(3)))
    before, after = (balanced_accuracy_score(TARGETS, given) for given in (BEFORE, AFTER))
    assert (found.before.value, found.after.value) == (pytest.approx(before), pytest.approx(after))
    assert found.change.low <= found.change.value <= found.change.high and found.chance is None
    assert (found.lost, found.gained) == (8, 1) and "chance" not in repr(found).splitlines()[0]


def test_classes_of_pixels_have_a_metric_with_an_interval():
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(20, 3, 4, 4, generator=generator)
    data = pj.Data(None, None, [(pixels, pixels.argmax(1))], pj.tasks.Classification(3))
    found = pj.explain(nn.Identity(), lambda x: x + torch.randn(x.shape, generator=generator), data)
    assert found.before.value == 1.0 and found.change.low <= found.change.value <= found.change.high < 0


def test_sums_of_samples_give_the_same_interval_as_their_outputs(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(20, 3, 4, 4, generator=generator)
    noise = torch.randn(20, 3, 4, 4, generator=generator)
    batches = [(pixels[at : at + 8], pixels[at : at + 8].argmax(1)) for at in (0, 8, 16)]
    data = pj.Data(None, None, batches, pj.tasks.Segmentation(3))
    first = [batch[0][0, 0, 0, 0] for batch in batches]

    def other(x):
        at = 8 * [bool(x[0, 0, 0, 0] == one) for one in first].index(True)
        return x + noise[at : at + 8]

    by_sums = pj.explain(nn.Identity(), other, data)
    monkeypatch.setattr("penjing.explanation._resampling.is_additive", lambda task: False)
    by_outputs = pj.explain(nn.Identity(), other, data)
    assert by_sums.change.value < 0 and by_sums.change.low < by_sums.change.high
    for side in ("before", "after", "change"):
        for end in ("value", "low", "high"):
            assert getattr(getattr(by_sums, side), end) == pytest.approx(
                getattr(getattr(by_outputs, side), end), abs=1e-6
            )


def test_what_has_no_interval_says_why():
    x = torch.randn(4, 1)
    found = pj.explain(nn.Identity(), nn.Identity(), pj.Data(None, None, [(x, x)], MeanError()))
    assert found.change is None and any("only 4 samples" in why for why in found.missing)


def test_a_metric_that_takes_long_is_not_computed_over_and_over(monkeypatch):
    monkeypatch.setattr("penjing.explanation._resampling.LONGEST", 0.0)
    x = torch.randn(40, 1)
    found = pj.explain(nn.Identity(), nn.Identity(), pj.Data(None, None, [(x, x)], MeanError()))
    assert found.change is None and any("400 times would take more than" in why for why in found.missing)


class Picky(MeanError):
    """A task whose metric takes each sample once."""

    class Negative(MeanError.Negative):
        def update(self, outputs, targets):
            if len(targets.unique()) < len(targets):
                raise ValueError("a sample twice")
            super().update(outputs, targets)


def test_a_metric_that_fails_on_drawn_samples_costs_the_interval_and_nothing_else():
    x = torch.arange(40.0)[:, None]
    found = pj.explain(nn.Identity(), nn.Identity(), pj.Data(None, None, [(x, x)], Picky()))
    assert found.change is None
    assert any("raised ValueError on joined or drawn samples (a sample twice)" in one for one in found.missing)


def test_batches_of_different_lengths_cost_the_interval_and_nothing_else():
    batches = [(x, x) for x in (torch.zeros(8, 3), torch.zeros(8, 5))]
    found = pj.explain(nn.Identity(), nn.Identity(), pj.Data(None, None, batches, MeanError()))
    assert found.samples == 16 and found.change is None
    assert any("other shapes in one batch than in another" in one for one in found.missing)


class Net(nn.Module):
    """Two convolutions and a linear layer."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.second = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(torch.relu(self.second(torch.relu(self.norm(self.first(x))))).mean((2, 3)))


def test_layers_of_the_same_shape_tell_their_noise():
    torch.manual_seed(0)
    graph = pj.capture(Net().eval(), torch.randn(2, 3, 8, 8))
    images = [(torch.randn(16, 3, 8, 8), torch.arange(16) % 3)]
    data = pj.Data(None, images, images, pj.tasks.Classification(3))
    for bits, least, most in (("int8", 30, 60), ("int4", 8, 30)):
        noise = {
            one.path: one.signal_to_noise_db
            for one in pj.explain(graph, pj.quantize(graph, data, weights=bits, simulate=True), data).layers
        }
        assert set(noise) == {"first", "second", "head"} and all(least < one < most for one in noise.values()), noise
    small = pj.prune(graph, amount=0.5)
    assert {one.path for one in pj.explain(graph, small, data).layers} == {"head"}
    assert {one.signal_to_noise_db for one in pj.explain(graph, graph, data).layers} == {150.0}


@pytest.mark.parametrize("broken", [torch.nan, torch.inf, 1e30])
def test_a_layer_whose_outputs_are_no_numbers_is_the_noisiest_and_not_the_purest(broken):
    torch.manual_seed(0)
    graph, small = (pj.capture(Net().eval(), torch.randn(2, 3, 8, 8)) for _ in range(2))
    small.load_state_dict(graph.state_dict())
    with torch.no_grad():
        small.get_parameter("head.weight")[0, 0] = broken
    images = [(torch.randn(16, 3, 8, 8), torch.arange(16) % 3)]
    found = pj.explain(graph, small, pj.Data(None, None, images, pj.tasks.Classification(3)))
    noise = {one.path: one.signal_to_noise_db for one in found.layers}
    assert noise == {"first": 150.0, "second": 150.0, "head": -150.0}
    json.dumps(found.to_dict(), allow_nan=False)


def test_nothing_is_told_of_a_layer_whose_outputs_never_vary():
    torch.manual_seed(0)
    graph, small = (pj.capture(Net().eval(), torch.randn(2, 3, 8, 8)) for _ in range(2))
    with torch.no_grad():
        graph.get_parameter("head.weight").zero_()
    images = [(torch.randn(16, 3, 8, 8), torch.arange(16) % 3)]
    found = pj.explain(graph, small, pj.Data(None, None, images, pj.tasks.Classification(3)))
    assert {one.path for one in found.layers} == {"first", "second"}


def test_it_is_plain_json_and_told_in_a_few_lines_and_as_escaped_html():
    found = told()
    assert json.loads(json.dumps(found.to_dict()))["classes"][0]["name"] == "bee"
    assert len(repr(found).splitlines()) < 12 and "8 right before only" in repr(found)
    page = found._repr_html_()
    assert "&lt;cat&gt;" in page and "<cat>" not in page


def test_data_without_samples_to_compare_on_are_refused():
    with pytest.raises(PenjingError, match="explain compares answers on data"):
        pj.explain(nn.Identity(), nn.Identity(), pj.Data([], None, None, pj.tasks.Unlabelled()))


def test_a_row_of_nan_leaves_the_confidence_of_the_others_as_it_is():
    probabilities = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
    spoiled = torch.cat([torch.full((1, 2), float("nan")), probabilities])
    targets = torch.tensor([0, 0, 1])
    data = pj.Data(None, None, [(spoiled, targets), (spoiled, targets)], pj.tasks.Classification(2), "two")
    found = pj.explain(nn.Identity(), nn.Identity(), data).calibration_after
    assert sorted(round(one.confidence, 3) for one in found.bins) == [0.0, 0.8, 0.9]
