"""Chooses the signal that suits a network, where the user names none."""

from penjing.distillation.pairs import floating
from penjing.distillation.signals._soft_labels import holds_classes


def suited(answers: str, outputs: object) -> str:
    """Returns the name of the signal by which a student can learn outputs of this kind.

    Args:
        answers: kind of the outputs, as a task names it: "classes", "values", or "auto" where it names none.
        outputs: outputs of the network for one batch, tensors in any nesting.

    Returns:
        "values" where the task names it, or where a tensor has no axis of two classes or more: a softmax over one entry is
        always 1, from which nothing can be learned. "soft_labels" otherwise.
    """
    if answers == "values" or not all(holds_classes(tensor) for tensor in floating(outputs)):
        return "values"
    return "soft_labels"
