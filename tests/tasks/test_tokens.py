"""Sequences of tokens: padding counts for nothing, batches by position or by name, and what doesn't fit."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score
from torch import nn
from torch.nn import functional as F

import penjing as pj
from penjing.distillation import counted_positions, soft_labels
from penjing.errors import PenjingError
from penjing.tasks import SequenceClassification, TokenClassification, compared_of, evaluate

IDS = torch.tensor([[5, 4, 0], [3, 0, 0]])
MASK = (IDS != 0).long()
LABELS = torch.tensor([[1, 2, -100], [0, -100, -100]])


def test_padded_positions_count_neither_by_their_id_nor_by_the_mask_nor_by_their_label():
    unmarked = LABELS.clamp(min=0)
    logits = torch.randn(2, 3, 3)
    wanted = F.cross_entropy(logits.transpose(1, 2), LABELS)
    by_id, by_mask, by_label = TokenClassification(3, padding=0), TokenClassification(3), TokenClassification(3)
    for task, batch in (
        (by_id, (IDS, unmarked)),
        (by_mask, ((IDS, MASK), unmarked)),
        (by_mask, ({"attention_mask": MASK, "input_ids": IDS}, unmarked)),
        (by_id, ({"attention_mask": MASK, "input_ids": IDS}, unmarked)),
        (by_mask, {"input_ids": IDS, "attention_mask": MASK, "labels": unmarked}),
        (by_label, (IDS, LABELS)),
    ):
        _, targets = task.split(batch)
        assert torch.equal(targets, LABELS)
        assert float(task.loss(logits, targets)) == pytest.approx(float(wanted))
        metric = task.metric()
        metric.update(F.one_hot(unmarked, 3).float(), targets)
        assert float(metric.compute()) == 1.0


@given(st.integers(0, 40), st.integers(0, 2))
def test_f1_is_that_of_scikit_learn_over_the_classes_inside(seed, outside):
    generator = torch.Generator().manual_seed(seed)
    logits, targets = torch.randn(9, 5, 3, generator=generator), torch.randint(0, 3, (9, 5), generator=generator)
    metric = TokenClassification(3, metric="f1", outside=outside).metric()
    for at in (0, 4, 8):
        metric.update(logits[at : at + 4], targets[at : at + 4])
    inside = [number for number in range(3) if number != outside]
    wanted = f1_score(targets.flatten(), logits.argmax(2).flatten(), labels=inside, average="micro", zero_division=0)
    assert float(metric.compute()) == pytest.approx(wanted)


@given(st.integers(0, 40), st.sampled_from(["accuracy", "f1"]))
def test_no_class_that_is_given_to_every_token_is_better_than_the_best_constant(seed, name):
    targets = torch.randint(-1, 4, (6, 4), generator=torch.Generator().manual_seed(seed))
    targets = targets.masked_fill(targets == -1, -100)
    task, found = TokenClassification(4, metric=name), []
    for number in range(4):
        metric = task.metric()
        metric.update(F.one_hot(torch.full_like(targets, number), 4).float(), targets)
        found.append(float(metric.compute()))
    assert max(found) == pytest.approx(task.constant([targets[:2], targets[2:]]))


def test_a_teacher_is_learned_token_by_token_where_the_tokens_count():
    task = TokenClassification(3, padding=0)
    student, teacher = torch.randn(2, 3, 3), torch.randn(2, 3, 3)
    own, taught = (compared_of(task, one) for one in (student, teacher))
    counted = counted_positions(LABELS, task.counted((IDS,)))
    flat = MASK.flatten() == 1
    wanted = soft_labels(student.flatten(0, 1)[flat], teacher.flatten(0, 1)[flat], temperature=2.0)
    assert float(soft_labels(own, taught, temperature=2.0, counted=counted)) == pytest.approx(float(wanted))


def test_dictionaries_give_the_inputs_that_are_named_in_order():
    task = SequenceClassification(2, inputs=("input_ids", "attention_mask", "token_type_ids"))
    batch = {"labels": torch.tensor([0, 1]), "attention_mask": MASK, "input_ids": IDS}
    inputs, targets = task.split(batch)
    assert torch.equal(inputs[0], IDS) and torch.equal(inputs[1], MASK) and len(inputs) == 2
    assert targets.tolist() == [0, 1] and torch.equal(task.counted(inputs), MASK.bool())
    assert task.split({"input_ids": IDS})[1] is None and task.counted((IDS,)) is None
    assert evaluate(lambda ids, mask: {"logits": F.one_hot(mask[:, 1], 2).float()}, [batch], task) == 0.0


def test_sequences_are_told_as_classes_and_shown_as_the_user_says():
    task, words = SequenceClassification(3, padding=0), ["_", "a", "b", "c", "d", "e"]
    logits = torch.eye(3).repeat(4, 1)
    ids = IDS[:1].repeat(12, 1)
    data = pj.Data(
        None, None, [(ids, torch.arange(3).repeat(4))], task, classes=("x", "y", "z"),
        show=lambda one: " ".join(words[int(token)] for token in one if token),
    )  # fmt: skip
    found = pj.explain(lambda x: logits, lambda x: logits.roll(1, 0), data)
    assert found.lost == 12 and found.shown[0].text == "e d" and {row.name for row in found.classes} == {"x", "y", "z"}


@pytest.mark.parametrize(
    ("task", "outputs", "targets", "message"),
    [
        (TokenClassification(3), (2, 3), LABELS, r"logits \(N, positions, 3\).*\(2, 3\).*use SequenceClassification"),
        (TokenClassification(3), (2, 3, 4), LABELS, r"logits \(N, positions, 3\).*\(2, 3, 4\)\."),
        (TokenClassification(3), (2, 2, 3), LABELS, r"indices \(2, 2\) for logits \(2, 2, 3\).*\(2, 3\) torch.int64"),
        (
            TokenClassification(2),
            (2, 3, 2),
            LABELS,
            "from 0 to 1, or −100, but position 1 of sample 0 of a batch has 2",
        ),
        (SequenceClassification(3), (2, 3, 3), torch.zeros(2).long(), r"\(2, 3, 3\).*use TokenClassification"),
    ],
)
def test_outputs_that_do_not_fit_are_refused_with_what_to_do(task, outputs, targets, message):
    with pytest.raises(PenjingError, match=message):
        task.loss(torch.randn(outputs), targets)


def test_batches_of_another_form_are_refused():
    for task in (TokenClassification(3), SequenceClassification(3)):
        with pytest.raises(PenjingError, match=r"input_ids, attention_mask and labels.*keys ids, labels.*inputs="):
            task.split({"ids": IDS, "labels": LABELS})
    with pytest.raises(PenjingError, match=r"target for each position, \(2, 3\), but the loader gave \(2, 2\)"):
        TokenClassification(3, padding=0).split((IDS, LABELS[:, :2]))
    with pytest.raises(PenjingError, match="padding=0 is the id"):
        TokenClassification(3, padding=0).split((torch.randn(2, 3, 4), LABELS))


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens, self.head = nn.Embedding(9, 8), nn.Linear(8, 3)

    def forward(self, ids, mask):
        return {"logits": self.head(self.tokens(ids) * mask.unsqueeze(-1))}


def test_a_tagger_of_named_inputs_learns_from_a_teacher_whatever_it_is_padded_to():
    torch.manual_seed(0)
    teacher, weights = Tagger(), Tagger().state_dict()
    generator, losses = torch.Generator().manual_seed(0), []
    ids = torch.randint(1, 9, (8, 4), generator=generator)
    for longer in (0, 3):
        padded = F.pad(ids, (0, longer))
        batch = {"input_ids": padded, "attention_mask": (padded != 0).long(), "labels": padded % 3}
        student, told = Tagger(), []
        student.load_state_dict(weights)
        data = pj.Data([batch], None, None, TokenClassification(3))
        pj.recover(
            student, data, teacher=teacher, epochs=2, lr=0.1, precision="float32", channels_last=False, progress=False,
            report=told.append,
        )  # fmt: skip
        losses.append([(epoch["losses"]["task"], epoch["losses"]["guidance"]) for epoch in told])
    assert torch.allclose(*(torch.tensor(one) for one in losses), atol=1e-6)


def test_inputs_by_name_tell_which_positions_hold_a_token():
    named = ({"attention_mask": MASK, "input_ids": IDS},)
    for task in (SequenceClassification(3), SequenceClassification(3, padding=0), pj.tasks.Classification(padding=0)):
        assert torch.equal(task.counted(named), IDS != 0)
    with pytest.raises(PenjingError, match="input_ids, but that is missing"):
        pj.tasks.Classification(padding=0).counted(({"x": IDS},))
