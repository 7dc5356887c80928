"""What the arguments of `quantize` may be, each by itself."""

from penjing.checks import FLAG, PATTERNS, SEED, TEXT, a, either, mapping, optional, several
from penjing.graph.doors import GRAPH
from penjing.quantize._placement import Placement

RULES = {
    "graph": GRAPH,
    "weights": TEXT,
    "activations": optional(TEXT),
    "observer": TEXT,
    "grain": TEXT,
    "rounding": TEXT,
    "corrections": either(TEXT, several(TEXT, "names of corrections")),
    "per_layer": optional(mapping(TEXT, "a mapping from patterns of module paths to names of grids")),
    "exclude": PATTERNS,
    "placement": either(a(Placement, "a Placement"), TEXT),
    "in_float": PATTERNS,
    "simulate": FLAG,
    "seed": SEED,
}
