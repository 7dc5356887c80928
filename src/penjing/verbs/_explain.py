"""`explain`: what a small network lost against its original, and where."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from penjing.checks import COUNT, FLAG, FUNCTION, a, checked, either
from penjing.data import Data
from penjing.errors import PenjingError
from penjing.explanation import Explanation, Witness, check_images, noise_of_layers
from penjing.explanation import robustness as judged_on_changed_images
from penjing.graph import Graph
from penjing.loaders import first
from penjing.targets import Artifact, session
from penjing.tasks import likeness

NETWORK = either(a(Artifact, "a lowered file"), FUNCTION)


@checked(graph=NETWORK, small=NETWORK, data=a(Data, "a penjing.Data"), shown=COUNT, robustness=FLAG)
def explain(
    graph: Callable[..., Any] | Artifact,
    small: Callable[..., Any] | Artifact,
    data: Data,
    *,
    shown: int = 24,
    robustness: bool = False,
) -> Explanation:
    """Tells what a small network lost against its original, and where: by class, by sample and by layer.

    Two networks of equal accuracy may differ in a few classes and in rare samples, which pay for the compression
    (Hooker et al., What Do Compressed Deep Neural Networks Forget?, 2019). The metric and the classes have intervals, which
    say what the validation data can tell at all.

    Args:
        graph: the original: a graph, a module, a function of a batch's inputs, or a lowered file.
        small: the network that was made of it, in any of these forms.
        data: its validation part is used, else its calibration part. `data.show` says how a sample is shown that is no
            image.
        shown: how many of the samples are shown whose answer changed.
        robustness: also judge both on images under noise, blur, changed light and JPEG (Hendrycks and Dietterich, 2019), up to
            1,000 validation images, thirty passes.

    Raises:
        PenjingError: the data has neither part, the two networks' outputs differ in number or shape, or `robustness` is asked of
            data that aren't labelled images.

    Example:
        >>> print(pj.explain(graph, small, data))  # doctest: +SKIP
        accuracy: 0.9778 before, 0.9722 after, -0.0056 (-0.0221 to +0.0110) on 360 samples. 8 of 360 answers changed: ...
    """
    loader = data.validation if data.validation is not None else data.calibration
    if loader is None:
        raise PenjingError("explain compares answers on data: pass a penjing.Data with validation=, or calibration=.")
    if robustness:
        check_images(data)  # before the networks run
    witness, before, after = Witness(data, shown), _runs(graph), _runs(small)
    likeness(before, after, loader, data.task, seen=witness)
    if isinstance(graph, Graph) and isinstance(small, Graph):
        inputs, _ = data.task.split(first(loader))
        found = witness.explanation(noise_of_layers(graph, small, inputs))
    else:
        found = witness.explanation(missing=["The noise of layers is told of two graphs alone."])
    return replace(found, robustness=judged_on_changed_images(before, after, data)) if robustness else found


def _runs(network: Callable[..., Any] | Artifact) -> Callable[..., Any]:
    return session(network) if isinstance(network, Artifact) else network
