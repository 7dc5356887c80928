"""The task of inputs without targets, which are enough to calibrate, to distil and to compare two networks."""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from torch import Tensor

from penjing.checks import check
from penjing.errors import PenjingError, unknown_name
from penjing.tasks._inputs import Inputs, inputs_of
from penjing.tasks._likeness import Answers
from penjing.tasks._outputs import describe
from penjing.tasks._positions import TOKEN, unpadded
from penjing.tasks._task import Metric


class Unlabelled:
    """The task of data without labels: batches are `(input,)`, there is no loss and no metric.

    A batch may also be the bare tensor, or `((input, input, ...),)` for networks with several inputs.

    Args:
        answers: kind of the network's outputs, by which two networks are compared, or one learns from the other. "classes":
            the answer is the largest entry along axis 1 of the first tensor. "values": all outputs are compared as they are.
            "auto" decides by looking at the original's outputs; since scores of classes look like a vector of measurements,
            name "values" for the latter. See `Likeness`.
        padding: as that of `Classification`.
    """

    labelled = False
    metric_name = "agreement"

    def __init__(self, answers: Answers = "auto", padding: int | None = None) -> None:
        if answers not in get_args(Answers):
            raise unknown_name("kind of answers", str(answers), get_args(Answers))
        check({"padding": padding}, {"padding": TOKEN})
        self.answers = answers
        self.padding = padding

    def __repr__(self) -> str:
        given: dict[str, object] = {} if self.answers == "auto" else {"answers": self.answers}
        given |= {} if self.padding is None else {"padding": self.padding}
        return f"Unlabelled({', '.join(f'{name}={value!r}' for name, value in given.items())})"

    def split(self, batch: Any) -> tuple[Inputs, None]:
        """Returns the inputs, and None for the targets.

        Raises:
            PenjingError: the batch is of another form, such as one with targets.
        """
        inside = batch[0] if isinstance(batch, tuple | list) and len(batch) == 1 else batch
        inputs = inputs_of(inside)
        if inputs is None or (inside is batch and not isinstance(batch, Tensor | Mapping)):
            raise PenjingError(
                "Unlabelled expects batches (input,), or ((input, ...),) or {name: input} for several inputs, but the loader "
                f"gave {describe(batch)}. If the second part is a label, use Classification."
            )
        return inputs, None

    def counted(self, inputs: Sequence[Tensor]) -> Tensor | None:
        """Returns which positions of the inputs aren't padded, boolean `(N, positions)`; None without padding."""
        return unpadded(inputs, self.padding)

    def loss(self, outputs: Any, targets: Tensor) -> Tensor:
        """Raises `PenjingError`, as there are no targets to compare the outputs with."""
        raise PenjingError("Unlabelled data has no loss: train from a teacher's outputs, or give labelled data.")

    def metric(self) -> Metric:
        """Raises `PenjingError`, as there are no targets to compare the outputs with."""
        raise PenjingError("Unlabelled data has no metric: compare two networks with penjing.tasks.agreement instead.")
