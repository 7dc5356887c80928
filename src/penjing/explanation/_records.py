"""What is told of two networks, as data: `Explanation` and its parts."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from penjing.explanation._layers import LayerNoise
from penjing.explanation._robustness import Robustness
from penjing.explanation._statistics import Estimate
from penjing.explanation._told import as_html, as_text

Kind = Literal["lost", "gained", "other", "changed"]


@dataclass(frozen=True)
class ClassChange:
    """One class before and after.

    Attributes:
        name: the class's name, or its number.
        samples: validation samples of this class.
        before: the share of them that the original answers rightly.
        after: the share that the small network answers rightly.
        change: after − before, with the interval of paired samples.
        clear: whether the change is more than chance, with all classes looked at.
    """

    name: str
    samples: int
    before: Estimate
    after: Estimate
    change: Estimate
    clear: bool


@dataclass(frozen=True)
class ChangedSample:
    """A sample that the two networks answer differently.

    Attributes:
        index: its position in the validation data, from 0.
        kind: "lost" where only the original is right, "gained" where only the small network is, "other" where both are
            wrong, "changed" where no label tells.
        before: the original's answer.
        after: the small network's answer.
        before_confidence: the probability that the original gives its answer.
        after_confidence: the probability that the small network gives its answer.
        label: the true class; None without labels.
        file: the sample's file, where it came from one.
        image: the sample as the network sees it, a `data:` URI of a PNG or JPEG; None where it is no image.
        text: the sample in words or numbers; None where it is an image.
    """

    index: int
    kind: Kind
    before: str
    after: str
    before_confidence: float
    after_confidence: float
    label: str | None = None
    file: str | None = None
    image: str | None = None
    text: str | None = None


@dataclass(frozen=True)
class Bin:
    """Answers of about the same confidence.

    Attributes:
        samples: how many there are.
        confidence: their mean confidence.
        accuracy: the share of them that is right.
    """

    samples: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """Whether a network's confidence can be believed (Guo et al., On Calibration of Modern Neural Networks, 2017).

    Attributes:
        error: the expected calibration error, the mean distance of confidence and accuracy over the bins, from 0 to 1.
        bins: the answers in bins of equal width of the confidence, without the empty bins.
    """

    error: float
    bins: tuple[Bin, ...]


@dataclass(frozen=True, repr=False)
class Explanation:
    """What a small network lost against its original, and where.

    Attributes:
        metric_name: what the metric is called.
        samples: samples that both networks answered.
        before: the original's metric; None where there is none.
        after: the small network's metric.
        change: after − before, with an interval for paired samples; higher is better.
        chance: how likely chance alone gives such a change (McNemar's exact test); None where it wasn't tested.
        changed: samples that the two answer differently; None where answers are no classes.
        lost: those of them that only the original answers rightly; None without labels.
        gained: those that only the small network answers rightly.
        classes: each class, the largest fall first; empty where answers are no classes.
        shown: some of the changed samples, the lost ones first, of each kind the surest new answers first.
        calibration_before: the original's confidence; None where it isn't known.
        calibration_after: the small network's confidence.
        layers: the noise of each layer that both graphs have in the same shape.
        missing: sentences that say what can't be told, and why.
        lower_is_better: whether the metric is an error; it is then negative here, and shown without the sign.
        robustness: both networks on changed images; None where that wasn't asked for.
    """

    metric_name: str
    samples: int
    before: Estimate | None = None
    after: Estimate | None = None
    change: Estimate | None = None
    chance: float | None = None
    changed: int | None = None
    lost: int | None = None
    gained: int | None = None
    classes: tuple[ClassChange, ...] = ()
    shown: tuple[ChangedSample, ...] = ()
    calibration_before: Calibration | None = None
    calibration_after: Calibration | None = None
    layers: tuple[LayerNoise, ...] = ()
    missing: tuple[str, ...] = ()
    lower_is_better: bool = False
    robustness: Robustness | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns the explanation as plain JSON."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain

    def __repr__(self) -> str:
        return as_text(self.to_dict())

    def _repr_html_(self) -> str:
        return as_html(self.to_dict())


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return round(value, 6) if isinstance(value, float) else value
