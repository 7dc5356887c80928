"""Metrics, one per file: how the errors of an approximated layer count."""

from penjing.factorization.metrics import _loss, _outputs, _weights  # noqa: F401  registers
from penjing.factorization.metrics._registry import ErrorMetric, Goal, begin, goal, metrics

__all__ = ["ErrorMetric", "Goal", "begin", "goal", "metrics"]
