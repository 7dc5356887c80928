"""`factorize`, the verb."""

from collections.abc import Mapping, Sequence

from penjing.capabilities import DEFAULT
from penjing.checks import COUNT, PATTERNS, SEED, TEXT, a, checked, either, mapping, optional, several, whole
from penjing.data import Data
from penjing.errors import PenjingError
from penjing.evidence.memory import remembering
from penjing.factorization._carrying_out import carry_out
from penjing.factorization._proposing import options_for
from penjing.factorization.settings import FactorizationSettings, Ranks
from penjing.graph import Graph
from penjing.graph.doors import GRAPH
from penjing.report import LEFT_ALONE

RANK = whole(-(2**31), 2**31)  # what a layer allows, the layer's own error says
RANKS = either(RANK, several(RANK, "ranks"))


@checked(
    graph=GRAPH,
    method=TEXT,
    ranks=either(TEXT, RANKS, mapping(RANKS, "a mapping from layers to ranks")),
    metric=TEXT,
    form=TEXT,
    data=optional(a(Data, "a penjing.Data")),
    include=PATTERNS,
    exclude=PATTERNS,
    target=TEXT,
    round_to=optional(COUNT),
    batches=COUNT,
    seed=SEED,
)
def factorize(
    graph: Graph,
    *,
    method: str = "auto",
    ranks: str | Ranks | Mapping[str, Ranks] = "energy:0.9",
    metric: str = "auto",
    form: str = "chain",
    data: Data | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    target: str = DEFAULT,
    round_to: int | None = None,
    batches: int = 16,
    seed: int = 0,
) -> Graph:
    """Returns a copy of a graph in which layers are chains of smaller ones; `graph` stays as it was.

    Linear layers, convolutions of one group and embeddings are factorised, nothing else. The last layer of each chain has the
    module path and the node name of the layer that it stands for, and the chain's weights are named after the layer's:
    `conv1.weight` becomes `conv1.0.weight`, `conv1.1.weight`, ….

    Args:
        graph: a captured graph.
        method: the decomposition, a name in `penjing list decompositions`; "auto" takes "tucker2" for weights with a kernel
            and "svd" for all others.
        ranks: a rank rule, a name in `penjing list rank_rules` such as "energy:0.9" or "speedup:2"; or the ranks: one number, or
            one for each rank of the decomposition, for all layers alike; or a mapping from layers to their ranks, which
            factorises these layers alone.
        metric: how errors count, a name in `penjing list metrics`; "auto" takes "asymmetric" where
            there are data, which needs a pass over them for each layer, else "weights".
        form: how factors are executed, a name in `penjing list forms`.
        data: the data that the metric looks at: `calibration`, or else `train`.
        include: patterns of module paths; if given, only layers of matching modules are factorised.
        exclude: patterns of module paths whose layers stay as they are.
        target: the runtime, for whose kernels the ranks that a rule finds are rounded.
        round_to: round them to multiples of this number instead; 1 leaves them as they are found. Given ranks are taken as they
            are.
        batches: how many batches of data the metric looks at.
        seed: seed of the data's order and augmentation.

    Returns:
        The factorised graph. Its `plan` has an entry for each layer: its ranks, the error of its approximation as the metric
        counts it, relative to that of zeros, and, where it is left alone, the reason.

    Raises:
        PenjingError: an unknown name, a rank out of its range, a metric whose data are missing, or a graph in which no layer
            can be factorised so.

    Example:
        >>> small = pj.factorize(graph, ranks="speedup:2", data=data)  # doctest: +SKIP
    """
    settings = FactorizationSettings(
        method, ranks, metric, form, tuple(include), tuple(exclude), target, round_to, batches, seed
    )
    data = remembering(data) if data is not None else None  # ranks and factors look at the same moments
    options = options_for(graph, settings, data)
    small = carry_out(graph, options, data, lenient=True)
    done = small.plan[len(graph.plan) :]
    if all("reason" in option.found for option in done):
        reasons = {str(option.found["reason"]): None for option in done}
        why = "; ".join(LEFT_ALONE.get(reason, reason) for reason in reasons) or "there is none"
        raise PenjingError(f"No layer can be factorised by method='{method}' with ranks={ranks!r}: {why}.")
    return small
