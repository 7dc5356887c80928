"""Rules for the single arguments of `prune`."""

from penjing.checks import COUNT, FUNCTION, PATTERNS, SEED, TEXT, a, either, optional
from penjing.data import Data
from penjing.graph.doors import GRAPH

RULES = {
    "graph": GRAPH,
    "criterion": TEXT,
    "granularity": TEXT,
    "allocation": TEXT,
    "round_to": optional(either(COUNT, FUNCTION)),
    "min_channels": COUNT,
    "units": TEXT,
    "data": optional(a(Data, "a penjing.Data")),
    "include": PATTERNS,
    "exclude": PATTERNS,
    "batches": COUNT,
    "seed": SEED,
}
