"""Several heads: which of them is judged, how their losses add up, how each is learned and what is told of a wrong form."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import penjing as pj
from penjing.distillation import Comparison, Seen, signals, soft_labels, values
from penjing.errors import PenjingError
from penjing.tasks import Classification, MultiTask, Regression, Segmentation, Unlabelled, evaluate

HEADS = {"kind": Classification(3), "place": Regression("mae"), "mask": Segmentation(2, ignore_index=255)}
INPUT = torch.randn(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))
OUTPUTS = {"kind": torch.randn(6, 3), "place": torch.randn(6, 2), "mask": torch.randn(6, 2, 4, 4)}
TARGETS = {
    "kind": torch.tensor([0, 1, 2, 0, 1, 2]),
    "place": torch.zeros(6, 2),
    "mask": torch.tensor([0, 1, 1, 255]).expand(6, 4, 4),
}


def test_the_loss_is_the_weighted_sum_of_the_heads():
    task = MultiTask(HEADS, weights={"place": 0.1, "mask": 2.0})
    _, targets = task.split((INPUT, TARGETS))
    wanted = (
        F.cross_entropy(OUTPUTS["kind"], TARGETS["kind"])
        + 0.1 * OUTPUTS["place"].square().mean()
        + 2 * F.cross_entropy(OUTPUTS["mask"], TARGETS["mask"].long(), ignore_index=255)
    )
    assert float(task.loss(OUTPUTS, targets)) == pytest.approx(float(wanted), rel=1e-5)


@pytest.mark.parametrize("name", HEADS)
def test_each_head_can_be_the_headline_and_is_judged_as_alone(name):
    task = MultiTask(HEADS).with_headline(name)
    outputs, targets = OUTPUTS[name], TARGETS[name]
    alone = evaluate(lambda x: outputs, [(INPUT, targets)], HEADS[name])
    assert evaluate(lambda x: OUTPUTS, [(INPUT, TARGETS)], task) == alone
    assert task.constant([task.split((INPUT, TARGETS))[1]]) == HEADS[name].constant(
        [HEADS[name].split((INPUT, targets))[1]]
    )
    assert task.metric_name == f"{HEADS[name].metric_name} of {name}" and task.lower_is_better == (name == "place")


def test_outputs_and_targets_may_also_come_in_order():
    task = MultiTask(HEADS)
    by_name, in_order = OUTPUTS, tuple(OUTPUTS.values())
    for batch in ((INPUT, TARGETS), (INPUT, tuple(TARGETS.values())), (INPUT, *TARGETS.values())):
        inputs, targets = task.split(batch)
        assert len(inputs) == 1 and list(targets) == list(HEADS) and int(targets["mask"].min()) == -100
        assert torch.equal(task.loss(by_name, targets), task.loss(in_order, targets))
    assert task.split((INPUT,)) == ((INPUT,), None)


def test_the_first_head_is_the_headline_unless_another_one_is_named():
    assert MultiTask(HEADS).headline == "kind" and MultiTask(HEADS, "mask").headline == "mask"
    with pytest.raises(PenjingError, match=r"Unknown head 'masks'. Did you mean 'mask'"):
        MultiTask(HEADS, headline="masks")
    with pytest.raises(PenjingError, match="Unknown head 'plac'"):
        MultiTask(HEADS, weights={"plac": 1.0})
    with pytest.raises(PenjingError, match="'kind' has no labels"):
        MultiTask({"kind": Unlabelled()})
    with pytest.raises(PenjingError, match="at least one head"):
        MultiTask({})


def test_what_is_wrong_of_one_head_names_the_head():
    task = MultiTask(HEADS)
    _, targets = task.split((INPUT, TARGETS))
    with pytest.raises(PenjingError, match=r"The head 'place': Regression needs.*\(6, 3\).*\(6, 2\)"):
        task.loss(OUTPUTS | {"place": torch.zeros(6, 3)}, targets)
    with pytest.raises(PenjingError, match=r"outputs for the heads kind, place, mask.*keys kind, place\."):
        task.loss({"kind": OUTPUTS["kind"], "place": OUTPUTS["place"]}, targets)
    with pytest.raises(PenjingError, match=r"targets for the heads.*keys kind"):
        task.split((INPUT, {"kind": TARGETS["kind"]}))
    with pytest.raises(PenjingError, match=r"expects batches \(input, targets\)"):
        task.split({"input": INPUT})


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.kind, self.place, self.mask = nn.Linear(16, 3), nn.Linear(16, 2), nn.Conv2d(1, 2, 3, padding=1)

    def forward(self, x):
        return {"kind": self.kind(x.flatten(1)), "place": self.place(x.flatten(1)), "mask": self.mask(x)}


def test_each_head_is_learned_from_a_teacher_by_the_signal_that_suits_it():
    torch.manual_seed(0)
    teacher, student = Net().eval(), Net()
    task = MultiTask(HEADS, weights={"place": 0.1})
    data = pj.Data([(INPUT, TARGETS)], None, None, task)
    told = []
    before = copy.deepcopy(student).eval()
    pj.recover(
        student, data, teacher=teacher, epochs=1, distill_weight=1.0, temperature=2.0, lr=0.01, precision="float32",
        channels_last=False, progress=False, report=told.append,
    )  # fmt: skip
    with torch.no_grad():
        own, taught = before(INPUT), teacher(INPUT)
    counted = (TARGETS["mask"] != 255).contiguous()
    wanted = soft_labels(own["kind"], taught["kind"], temperature=2.0) + 0.1 * values(own["place"], taught["place"])
    wanted = wanted + soft_labels(own["mask"], taught["mask"], temperature=2.0, counted=counted)
    assert told[0]["losses"]["guidance"] == pytest.approx(float(wanted), rel=1e-5)


def test_a_signal_of_classes_that_is_named_teaches_the_heads_that_hold_classes():
    torch.manual_seed(0)
    teacher, student = Net().eval(), Net()
    data = pj.Data([(INPUT, TARGETS)], None, None, MultiTask(HEADS))
    told, before = [], copy.deepcopy(student).eval()
    pj.recover(
        student, data, teacher=teacher, epochs=1, signal="dkd", distill_weight=1.0, lr=0.01, precision="float32",
        channels_last=False, progress=False, report=told.append,
    )  # fmt: skip
    _, targets = MultiTask(HEADS).split((INPUT, TARGETS))
    wanted = 0.0
    with torch.no_grad():
        own, taught = before(INPUT), teacher(INPUT)
        for name in ("kind", "mask"):
            seen = Comparison(Seen(own[name]), Seen(taught[name]), targets=targets[name])
            wanted += float(signals["dkd"].function()(seen))
        wanted += float(values(own["place"], taught["place"]))
    assert told[0]["losses"]["guidance"] == pytest.approx(wanted, rel=1e-5)


def test_what_changed_is_told_of_the_headline():
    task = MultiTask(HEADS)
    wrong = OUTPUTS | {"kind": OUTPUTS["kind"].roll(1, 0)}
    data = pj.Data(None, None, [(INPUT, TARGETS)] * 2, task)
    found = pj.explain(lambda x: OUTPUTS, lambda x: wrong, data)
    assert found.metric_name == "accuracy of kind" and found.changed == 2 * int(
        (OUTPUTS["kind"].argmax(1) != wrong["kind"].argmax(1)).sum()
    )
    assert {row.name for row in found.classes} == {"0", "1", "2"}
