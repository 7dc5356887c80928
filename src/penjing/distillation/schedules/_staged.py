"""The schedule "staged": the teacher counts alone at first, then labels and teacher together."""

from penjing.distillation.schedules._registry import distillation_schedules

ALONE = 0.3  # share of the training in which there is guidance alone


@distillation_schedules.register(
    source="Romero et al., FitNets, ICLR 2015, section 2.2, arXiv:1412.6550 (in two stages)"
)
def staged(progress: float) -> tuple[float, float]:
    """Learns from the teacher alone in the first 30 % of the training, then from labels and teacher."""
    return (0.0, 1.0) if progress < ALONE else (1.0, 1.0)
