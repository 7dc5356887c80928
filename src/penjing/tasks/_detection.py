"""Boxes of things in images, judged by mean average precision."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from penjing.checks import COUNT, FUNCTION, check, optional
from penjing.errors import PenjingError, unknown_name
from penjing.raised import raised
from penjing.tasks._inputs import inputs_of, sample_count
from penjing.tasks._likeness import Answers
from penjing.tasks._outputs import describe
from penjing.tasks._registry import tasks
from penjing.tasks._task import Metric

Score = Literal["map", "map50"]
Boxes = Mapping[str, Tensor]
NAMES = {"map": "mAP", "map50": "mAP at IoU 0.5"}


@tasks.register(source="Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014, arXiv:1405.0312")
class Detection:
    """Boxes of things in images: a loss of the user's, and mean average precision.

    Batches are `(images, targets)`, with a dictionary for each image as torchvision has it: "boxes" `(n, 4)` in pixels, x1, y1,
    x2, y2, and "labels" `(n,)`. Images are one tensor, or a list of tensors of one size. A network that is captured ends where
    its outputs are tensors of fixed shapes: what follows, such as non-maximum suppression, is `decode`, which runs outside of it.

    Args:
        loss: from the network's outputs and the targets of a batch to a scalar, the mean over its images.
        decode: from the network's outputs to a list with a dictionary for each image: "boxes", "labels", and "scores" `(n,)`.
            Without it the network returns such a list itself.
        classes: labels run from 0 to below this number; None allows any.
        metric: "map", COCO's mean over thresholds of IoU from 0.5 to 0.95; or "map50", at 0.5 alone. Both are means over the
            classes of which there is a box.

    Example:
        >>> import torch
        >>> box = {"boxes": torch.tensor([[0.0, 0.0, 10.0, 10.0]]), "labels": torch.tensor([1])}
        >>> metric = Detection(lambda outputs, targets: outputs.mean()).metric()
        >>> metric.update([{**box, "scores": torch.tensor([0.9])}], [box])
        >>> float(metric.compute())
        1.0
    """

    labelled = True
    answers: Answers = "values"

    def __init__(
        self,
        loss: Callable[[Any, list[Boxes]], Tensor],
        decode: Callable[[Any], list[Boxes]] | None = None,
        classes: int | None = None,
        metric: Score = "map",
    ) -> None:
        """Takes the user's functions.

        Raises:
            PenjingError: the metric's name is unknown, or an argument isn't allowed.
        """
        check({"loss": loss, "decode": decode, "classes": classes}, _RULES)
        if metric not in get_args(Score):
            raise unknown_name("metric of detection", str(metric), get_args(Score))
        self._loss, self.decode, self.classes = loss, decode, classes
        self._metric: Score = metric
        self.metric_name = NAMES[metric]

    def __repr__(self) -> str:
        return f"Detection(classes={self.classes}, metric={self._metric!r})"

    def split(self, batch: Any) -> tuple[tuple[Tensor, ...], list[Boxes] | None]:
        """Returns the inputs, and the boxes of each image; no boxes for `(images,)`.

        Raises:
            PenjingError: the batch is of another form, or a box isn't one.
        """
        if isinstance(batch, Tensor):
            return (batch,), None
        given = batch[0] if isinstance(batch, tuple | list) and len(batch) in (1, 2) else None
        inputs = inputs_of(given)
        targets = list(batch[1]) if inputs and len(batch) == 2 and isinstance(batch[1], tuple | list) else None
        if inputs is None or (targets is None and len(batch) == 2):
            raise PenjingError(
                "Detection expects batches (images, targets) with a dictionary of boxes and labels for each image, but the "
                f"loader gave {describe(batch)}."
            )
        if isinstance(given, tuple | list) and all(one.ndim == 3 for one in inputs):
            inputs = (_stacked(inputs),)
        if targets is None:
            return inputs, None
        if len(targets) != sample_count(inputs):
            raise PenjingError(f"Detection has {sample_count(inputs)} images in a batch, but boxes for {len(targets)}.")
        for at, one in enumerate(targets):
            self._check(one, at)
        return inputs, targets

    def _check(self, one: Any, at: int) -> None:
        where = f"the targets of image {at} of a batch"
        _check_form(one, ("boxes", "labels"), where)
        boxes = one["boxes"]
        wrong = ~((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]))
        if bool(wrong.any()):
            box = int(wrong.nonzero()[0])
            raise PenjingError(
                f"Detection needs boxes x1, y1, x2, y2 with x1 < x2 and y1 < y2, but box {box} in {where} is "
                f"{tuple(round(value, 4) for value in boxes[box].tolist())}. Convert others, such as x, y, width, height, and "
                "leave empty ones out."
            )
        labels = one["labels"]
        if (
            self.classes is not None
            and labels.numel()
            and not 0 <= int(labels.min()) <= int(labels.max()) < self.classes
        ):
            raise PenjingError(
                f"Detection(classes={self.classes}) needs labels from 0 to {self.classes - 1}, but {where} have labels from "
                f"{int(labels.min())} to {int(labels.max())}."
            )

    def loss(self, outputs: Any, targets: list[Boxes]) -> Tensor:
        """Returns the user's loss.

        Raises:
            PenjingError: it isn't a scalar.
        """
        loss: Any = self._loss(outputs, targets)
        if not isinstance(loss, Tensor) or loss.ndim:
            raise PenjingError(
                f"Detection's loss must give a scalar tensor, but gave {describe(loss)}. Sum up several losses, and take the "
                "mean over images."
            )
        return loss

    def metric(self) -> Metric:
        """Returns a fresh mean average precision."""
        from penjing.tasks._average_precision import COCO, MeanAveragePrecision

        return MeanAveragePrecision(self, COCO if self._metric == "map" else (0.5,))  # type: ignore[return-value]

    def constant(self, targets: Iterable[Any]) -> float:
        """Returns 0: boxes that stand in the same places in every image find next to nothing."""
        return 0.0

    def decoded(self, outputs: Any, images: int) -> list[Boxes]:
        """Returns the boxes, labels and scores that a network found in each image.

        Args:
            outputs: of the network.
            images: how many there are.

        Raises:
            PenjingError: outputs, or what `decode` makes of them, are of another form, or `decode` fails.
        """
        found: Any = outputs
        if self.decode is not None:
            try:
                found = self.decode(outputs)
            except Exception as error:
                raise raised("Detection's decode, asked for the boxes of a batch, raised", error) from error
        whose = "the model gives" if self.decode is None else "decode gives"
        if not isinstance(found, tuple | list) or len(found) != images:
            hint = " Give a decode=, which makes such a list of the model's outputs." if self.decode is None else ""
            raise PenjingError(
                f"Detection needs a list with a dictionary (boxes, labels, scores) for each of {images} images, but {whose} "
                f"{describe(found)}.{hint}"
            )
        for at, one in enumerate(found):
            _check_form(one, ("boxes", "labels", "scores"), f"what {whose} for image {at} of a batch")
        return list(found)


def _stacked(images: tuple[Tensor, ...]) -> Tensor:
    sizes = {tuple(one.shape) for one in images}
    if len(sizes) > 1:
        raise PenjingError(
            f"Detection needs images of one size, but a batch has {', '.join(map(str, sorted(sizes)))}. Resize or pad them in "
            "the loader, and their boxes likewise."
        )
    return torch.stack(images)


def _check_form(one: Any, names: tuple[str, ...], where: str) -> None:
    if not isinstance(one, Mapping) or not all(isinstance(one.get(name), Tensor) for name in names):
        raise PenjingError(
            f"Detection needs tensors {', '.join(names)} in a dictionary, but {where} is {describe(one)}."
        )
    boxes, shapes = one["boxes"], {name: tuple(one[name].shape) for name in names}
    if boxes.ndim != 2 or boxes.shape[1] != 4 or any(shapes[name] != (len(boxes),) for name in names[1:]):
        raise PenjingError(
            f"Detection needs boxes (n, 4) and {' and '.join(names[1:])} (n,), but {where} has {shapes}."
        )


_RULES = {"loss": FUNCTION, "decode": optional(FUNCTION), "classes": optional(COUNT)}
