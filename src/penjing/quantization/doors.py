"""The rules for the arguments of `quantize`, each by itself."""

from penjing.capabilities import Capabilities
from penjing.checks import FLAG, PATTERNS, SEED, TEXT, a, either, mapping, optional, several
from penjing.graph.doors import GRAPH

RULES = {
    "graph": GRAPH,
    "weights": TEXT,
    "activations": optional(TEXT),
    "observer": TEXT,
    "grain": TEXT,
    "rounding": TEXT,
    "corrections": either(TEXT, several(TEXT, "names of corrections")),
    "per_layer": optional(mapping(TEXT, "a mapping from patterns of module paths to names of grids")),
    "include": PATTERNS,
    "exclude": PATTERNS,
    "target": either(a(Capabilities, "a Capabilities record"), TEXT),
    "placement": TEXT,
    "in_float": PATTERNS,
    "simulate": FLAG,
    "seed": SEED,
}
