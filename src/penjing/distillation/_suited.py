"""Which signal suits a network, where nobody names one."""

from penjing.distillation._pairs import floating
from penjing.distillation._soft_labels import holds_classes


def suited(answers: str, outputs: object) -> str:
    """Returns the name of the signal that outputs can be taught by.

    Args:
        answers: what the outputs are, as a task says it: "classes", "values", or "auto" where it doesn't.
        outputs: of the network for one batch, tensors in any nesting.

    Returns:
        "values" where the task says so, or where a tensor has no axis of two classes or more: a softmax over one entry is
        always 1, which teaches nothing. "soft_labels" otherwise.
    """
    if answers == "values" or not all(holds_classes(tensor) for tensor in floating(outputs)):
        return "values"
    return "soft_labels"
