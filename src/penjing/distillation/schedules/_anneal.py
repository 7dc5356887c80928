"""The schedule "anneal": the teacher counts less and less."""

from penjing.distillation.schedules._registry import distillation_schedules


@distillation_schedules.register(
    source="Jafari et al., Annealing Knowledge Distillation, EACL 2021, arXiv:2104.07163; Clark et al., BAM!, 2019"
)
def anneal(progress: float) -> tuple[float, float]:
    """Lets the teacher's weight fall to zero along a straight line, while the labels count in full."""
    return 1.0, 1.0 - progress
