"""The keys and types of report.json, schema 1, and the check that a report has them.

Each object of the report is a dataclass here. A field with a default may be missing, and None stands for a value that was not
measured. Names end in their unit: `_ms` in milliseconds, `_bytes` in bytes, `_mj` in millijoules. Objects may have more keys
than these.
"""

from dataclasses import dataclass
from typing import Any

from penjing import records
from penjing.checks import shown
from penjing.errors import PenjingError

SCHEMA = 1

Number = float | None


@dataclass(frozen=True)
class _ReportTarget:
    name: str
    version: str | None
    device: str | None
    threads: int | None
    batch: int | None


@dataclass(frozen=True)
class _ReportLatency:
    median: Number
    p90: Number
    runs: int | None


@dataclass(frozen=True)
class _ReportEnergy:
    value: Number
    source: str | None


@dataclass(frozen=True)
class _ReportSide:
    metric: Number
    latency_ms: _ReportLatency | None
    size_bytes: Number
    params: Number
    macs: Number
    peak_memory_bytes: Number
    energy_mj: _ReportEnergy | None
    model_memory_bytes: Number = None
    peak_activation_bytes: Number = None
    largest_tensor_bytes: Number = None
    layers: Number = None
    energy_estimated_mj: Number = None


@dataclass(frozen=True)
class _ReportRatios:
    latency: Number
    size: Number
    params: Number
    macs: Number
    latency_interval: tuple[Number, ...] | None = None
    energy: Number = None


@dataclass(frozen=True)
class _ReportParity:
    max_abs_error: Number
    top1_agreement: Number
    agreement_with_original: Number = None
    agreement_measure: str | None = None


@dataclass(frozen=True)
class _ReportProvenance:
    command: str | None = None
    inputs: dict[str, Any] | None = None
    versions: dict[str, Any] | None = None
    machine: dict[str, Any] | None = None


@dataclass(frozen=True)
class _ReportInput:
    name: str
    shape: tuple[int | None, ...]
    dtype: str


@dataclass(frozen=True)
class _ReportUsage:
    file: str
    packages: tuple[str, ...]
    photos: bool
    examples: str | None = None
    beside: tuple[str, ...] = ()
    inputs: tuple[_ReportInput, ...] = ()


@dataclass(frozen=True)
class _ReportUncounted:
    op: str
    module: str


@dataclass(frozen=True)
class _ReportDeflatedBytes:
    baseline: Number
    compressed: Number


@dataclass(frozen=True)
class _ReportZerosOfPlace:
    place: str
    granularity: str | None
    weights: int
    zeros: int
    faster: bool
    smaller: bool


@dataclass(frozen=True)
class _ReportZeros:
    zeros: int
    weights: int
    faster: int
    smaller: int
    why: str
    deflated_bytes: _ReportDeflatedBytes | None
    places: tuple[_ReportZerosOfPlace, ...]


@dataclass(frozen=True)
class _ReportStep:
    place: str
    technique: str
    setting: Any
    before: Any
    after: Any
    kind: str = ""
    found: Any = None


@dataclass(frozen=True)
class _ReportCandidate:
    params: Number
    latency: Number
    size_bytes: Number
    meets: bool
    integer: bool = False
    techniques: tuple[str, ...] = ()
    in_float: tuple[str, ...] = ()
    correction: float = 1.0
    damage: Number = None
    used: dict[str, Number] | None = None
    binds: str | None = None
    taken: bool = False


@dataclass(frozen=True)
class _ReportPricedOption:
    technique: str | None
    setting: Any
    before: Any
    after: Any
    goes_with: str
    latency: float | None
    size_bytes: float
    damage: float
    used: dict[str, Number] | None = None


@dataclass(frozen=True)
class _ReportPlace:
    place: str
    kind: str
    taken: _ReportPricedOption
    rival: _ReportPricedOption | None


@dataclass(frozen=True)
class _ReportLayerSide:
    latency_ms: Number
    params: Number
    macs: Number
    counted: bool = True
    shape: list[Any] | None = None
    integer: bool | None = None


@dataclass(frozen=True)
class _ReportLayer:
    name: str
    op: str
    before: _ReportLayerSide | None
    after: _ReportLayerSide | None


@dataclass(frozen=True)
class _ReportEstimate:
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class _ReportClass:
    name: str
    samples: int
    before: _ReportEstimate
    after: _ReportEstimate
    change: _ReportEstimate
    clear: bool


@dataclass(frozen=True)
class _ReportSample:
    index: int
    kind: str
    before: str
    after: str
    before_confidence: float
    after_confidence: float
    label: str | None = None
    file: str | None = None
    image: str | None = None
    text: str | None = None


@dataclass(frozen=True)
class _ReportBin:
    samples: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class _ReportCalibration:
    error: float
    bins: tuple[_ReportBin, ...]


@dataclass(frozen=True)
class _ReportLayerNoise:
    path: str
    signal_to_noise_db: float


@dataclass(frozen=True)
class _ReportChanges:
    samples: int
    metric_name: str = ""
    before: _ReportEstimate | None = None
    after: _ReportEstimate | None = None
    change: _ReportEstimate | None = None
    chance: Number = None
    changed: int | None = None
    lost: int | None = None
    gained: int | None = None
    classes: tuple[_ReportClass, ...] = ()
    shown: tuple[_ReportSample, ...] = ()
    calibration_before: _ReportCalibration | None = None
    calibration_after: _ReportCalibration | None = None
    layers: tuple[_ReportLayerNoise, ...] = ()
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class _ReportCorrupted:
    corruption: str
    severity: int
    before: float
    after: float


@dataclass(frozen=True)
class _ReportRobustness:
    samples: int
    rows: tuple[_ReportCorrupted, ...]


@dataclass(frozen=True)
class _ReportEpoch:
    number: int
    loss: Number
    metric: Number = None


@dataclass(frozen=True)
class _Report:
    schema: int
    model: str
    target: _ReportTarget
    budget: dict[str, Any]
    met: bool
    seed: int | None
    provenance: _ReportProvenance
    baseline: _ReportSide
    compressed: _ReportSide
    ratios: _ReportRatios
    parity: _ReportParity
    integer_macs: Number
    plan: tuple[_ReportStep, ...]
    seconds: dict[str, Number]
    constant_metric: Number = None
    metric_samples: int | None = None
    learned: bool | None = None
    uncounted: tuple[_ReportUncounted, ...] = ()
    usage: _ReportUsage | None = None
    zeros: _ReportZeros | None = None
    headline: str = ""
    metric_name: str | None = None
    lower_is_better: bool = False
    notes: tuple[str, ...] = ()
    training_details: tuple[str, ...] = ()
    training_epochs: tuple[_ReportEpoch, ...] = ()
    exclude: tuple[str, ...] | None = None
    layers: tuple[_ReportLayer, ...] = ()
    candidates: tuple[_ReportCandidate, ...] = ()
    places: tuple[_ReportPlace, ...] = ()
    changes: _ReportChanges | None = None
    robustness: _ReportRobustness | None = None
    data_source: str | None = None
    settings: dict[str, Any] | None = None


def check(report: Any) -> None:
    """Makes sure that JSON can hold `report`, and that it has the keys and types of schema 1.

    Raises:
        PenjingError: a key is missing or holds a wrong value; the message names the first such key.
    """
    schema = report.get("schema", SCHEMA) if isinstance(report, dict) else SCHEMA
    if schema != SCHEMA:
        raise PenjingError(
            f"The report has schema {shown(schema)}, and this version of Penjing reads schema {SCHEMA}. "
            "Use the version that wrote it, or run the compression again."
        )
    try:
        records.convert(report, _Report, more=True)
    except PenjingError as error:
        raise PenjingError(f"The report is not as schema {SCHEMA} asks for: {error}.") from error
