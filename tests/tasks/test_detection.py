"""Boxes: mean average precision is COCO's, and boxes that aren't any are refused."""

import contextlib
import io

import numpy as np
import pytest
import torch

import penjing as pj
from penjing.errors import PenjingError
from penjing.tasks import Detection, evaluate

IMAGES = torch.zeros(2, 3, 8, 8)


def boxes(rows, labels, scores=None):
    found = {"boxes": torch.tensor(rows, dtype=torch.float32).reshape(-1, 4), "labels": torch.tensor(labels).long()}
    return found if scores is None else {**found, "scores": torch.tensor(scores)}


def no_loss(outputs, targets):
    return torch.zeros(())


def drawn(seed, images=12, classes=3):
    """Boxes in some images, and answers near them, beside them, and of the wrong class."""
    random = np.random.default_rng(seed)
    wanted, found = [], []
    for _ in range(images):
        count = int(random.integers(0, 6))
        corner, size = random.uniform(0, 60, (count, 2)), random.uniform(8, 40, (count, 2))
        labels = random.integers(0, classes, count)
        wanted.append(boxes(np.concatenate([corner, corner + size], 1).tolist(), labels.tolist()))
        rows, names, scores = [], [], []
        for (x, y), (width, height), label in zip(corner, size, labels, strict=True):
            for _ in range(int(random.integers(0, 3))):
                dx, dy, dw, dh = random.normal(0, 3, 4)
                rows.append([x + dx, y + dy, x + dx + max(1, width + dw), y + dy + max(1, height + dh)])
                names.append(int(label if random.random() < 0.8 else random.integers(0, classes)))
                scores.append(float(random.random()))
        for _ in range(int(random.integers(0, 3))):
            x, y = random.uniform(0, 60, 2)
            rows.append([x, y, x + 10, y + 10])
            names.append(int(random.integers(0, classes)))
            scores.append(float(random.random()))
        found.append(boxes(rows, names, scores))
    return wanted, found


def by_coco(wanted, found):
    """Returns mAP and mAP at 0.5 as pycocotools computes them."""
    coco = pytest.importorskip("pycocotools.coco", reason="pycocotools, the oracle, isn't installed")
    from pycocotools.cocoeval import COCOeval

    def rows(boxes):
        corners = boxes["boxes"].double()
        return torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1).tolist()

    truth, answers = [], []
    for image, (own, their) in enumerate(zip(wanted, found, strict=True), 1):
        for row, label in zip(rows(own), own["labels"].tolist(), strict=True):
            truth.append({"id": len(truth) + 1, "image_id": image, "category_id": label, "bbox": row, "iscrowd": 0,
                          "area": row[2] * row[3]})  # fmt: skip
        for row, label, score in zip(rows(their), their["labels"].tolist(), their["scores"].tolist(), strict=True):
            answers.append({"image_id": image, "category_id": label, "bbox": row, "score": score})
    with contextlib.redirect_stdout(io.StringIO()):
        data = coco.COCO()
        data.dataset = {
            "info": {}, "images": [{"id": one + 1} for one in range(len(wanted))], "annotations": truth,
            "categories": [{"id": one} for one in range(3)],
        }  # fmt: skip
        data.createIndex()
        judge = COCOeval(data, data.loadRes(answers), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return judge.stats[0], judge.stats[1]


@pytest.mark.parametrize("seed", range(5))
def test_mean_average_precision_is_that_of_pycocotools(seed):
    wanted, found = drawn(seed)
    for metric, value in zip(("map", "map50"), by_coco(wanted, found), strict=True):
        judge = Detection(no_loss, metric=metric).metric()
        for at in range(0, 12, 5):
            judge.update(found[at : at + 5], wanted[at : at + 5])
        assert float(judge.compute()) == pytest.approx(value, abs=1e-9)


def test_of_two_answers_to_one_box_the_surer_is_right_and_the_other_wrong():
    wanted = [boxes([[0, 0, 10, 10], [20, 20, 30, 30]], [1, 1])]
    found = [boxes([[0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]], [1, 1, 1], [0.9, 0.8, 0.7])]
    judge = Detection(no_loss, metric="map50").metric()
    judge.update(found, wanted)
    # Recall 1/2 at precision 1, then recall 1 at precision 2/3: 51 points of 101 at the first, 50 at the second.
    assert float(judge.compute()) == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_a_box_counts_up_to_the_overlap_that_it_has():
    wanted, found = [boxes([[0, 0, 10, 10]], [0])], [boxes([[0, 0, 10, 8]], [0], [0.5])]  # IoU 0.8
    judge = Detection(no_loss).metric()
    judge.update(found, wanted)
    assert float(judge.compute()) == pytest.approx(0.7)  # 0.5 to 0.8 of the ten thresholds
    judge.reset()
    judge.update([boxes([[0, 0, 10, 10]], [1], [0.5])], wanted)
    assert float(judge.compute()) == 0.0


def test_answers_that_are_no_numbers_are_never_right():
    wanted = [boxes([[0, 0, 10, 10]], [0])]
    for row, score in (([0, 0, 10, 10], torch.nan), ([torch.nan, 0, 10, 10], 0.9), ([10, 10, 0, 0], 0.9)):
        assert evaluate(lambda x, row=row, score=score: [boxes([row], [0], [score])],
                        [(IMAGES[:1], wanted)], Detection(no_loss)) == 0.0  # fmt: skip


def test_images_may_be_a_list_of_one_size_and_targets_a_tuple_as_torchvision_collates_them():
    one = boxes([[0, 0, 4, 4]], [1])
    inputs, targets = Detection(no_loss).split((tuple(IMAGES), (one, one)))
    assert inputs[0].shape == IMAGES.shape and targets == [one, one]
    assert Detection(no_loss).split((IMAGES,))[1] is None
    with pytest.raises(PenjingError, match=r"images of one size, but a batch has \(3, 6, 8\), \(3, 8, 8\)"):
        Detection(no_loss).split(([IMAGES[0], IMAGES[1, :, :6]], [one, one]))


def test_raw_outputs_are_decoded_and_a_decode_that_fails_is_named():
    def decode(outputs):
        return [boxes(row.tolist(), [1], [0.9]) for row in outputs]

    wanted = [boxes([[0, 0, 4, 4]], [1]), boxes([[2, 2, 8, 8]], [1])]
    raw = torch.stack([one["boxes"] for one in wanted])
    assert evaluate(lambda x: raw, [(IMAGES, wanted)], Detection(no_loss, decode)) == 1.0
    with pytest.raises(
        PenjingError, match=r"for each of 2 images, but the model gives Tensor\(2, 1, 4\)\. Give a decode="
    ):
        Detection(no_loss).metric().update(raw, wanted)
    with pytest.raises(PenjingError, match=r"but decode gives list\(\)"):
        Detection(no_loss, lambda outputs: []).metric().update(raw, wanted)
    with pytest.raises(PenjingError, match="decode, asked for the boxes of a batch, raised KeyError"):
        Detection(no_loss, lambda outputs: {}["boxes"]).metric().update(raw, wanted)
    with pytest.raises(PenjingError, match="boxes, labels, scores in a dictionary, but what decode gives for image 0"):
        Detection(no_loss, lambda outputs: wanted).metric().update(raw, wanted)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (
            boxes([[0, 0, 4, 4], [5, 1, 2, 4]], [1, 1]),
            r"box 1 in the targets of image 1 of a batch is \(5.0, 1.0, 2.0, 4.0\)",
        ),
        (boxes([[0, 0, 4, 0]], [1]), r"x1 < x2 and y1 < y2"),
        (
            boxes([[0, 0, 4, 4]], [3]),
            r"labels from 0 to 2, but the targets of image 1 of a batch have labels from 3 to 3",
        ),
        (boxes([[0, 0, 4, 4]], [1, 2]), r"boxes \(n, 4\) and labels \(n,\).*'labels': \(2,\)"),
        (
            {"boxes": torch.zeros(0, 4)},
            "tensors boxes, labels in a dictionary, but the targets of image 1 .* keys boxes",
        ),
    ],
)
def test_boxes_that_are_none_are_refused_with_where_they_stand(target, message):
    with pytest.raises(PenjingError, match=message):
        Detection(no_loss, classes=3).split((IMAGES, [boxes([], []), target]))


def test_batches_of_another_form_and_losses_that_are_no_scalars_are_refused():
    with pytest.raises(PenjingError, match="boxes for 1"):
        Detection(no_loss).split((IMAGES, [boxes([], [])]))
    with pytest.raises(PenjingError, match=r"expects batches \(images, targets\).*Tensor\(2,\)"):
        Detection(no_loss).split((IMAGES, torch.zeros(2)))
    with pytest.raises(PenjingError, match=r"must give a scalar tensor, but gave dict with the keys box, class"):
        Detection(lambda outputs, targets: {"box": 1, "class": 2}).loss(None, [])
    with pytest.raises(PenjingError, match="Did you mean 'map50'"):
        Detection(no_loss, metric="map5")
    assert isinstance(Detection(no_loss), pj.tasks.Task)
