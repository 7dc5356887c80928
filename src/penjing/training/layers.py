"""Layer-wise learning rates: the nearer a layer is to the input, the less it changes."""

from collections.abc import Sequence

from torch import fx, nn

from penjing.distillation.taps import numbered_blocks
from penjing.graph import Graph


def rate_factors(network: nn.Module, decay: float) -> dict[nn.Parameter, float]:
    """Returns the factor of the learning rate of each parameter that is trained: decay^(number of layers behind its layer).

    A layer is a block, a numbered module that holds two layers or more such as "layer1.0", or else any module with a weight of
    several axes. Norms and biases belong to the layer that they stand in or behind, and a parameter that several layers share
    to the first of them. In a graph layers follow one another as they are executed, in a plain module as they were made.

    Args:
        network: a graph or a plain module.
        decay: the factor from one layer to the layer in front, above 0 and at most 1.

    References:
        Clark et al. 2020, ELECTRA, appendix B, arXiv:2003.10555; Bao et al. 2022, BEiT, arXiv:2106.08254.
    """
    named = [(name, parameter) for name, parameter in _in_order(network) if parameter.requires_grad]
    blocks = numbered_blocks([_path(name) for name, parameter in named if parameter.ndim > 1])
    layers: dict[str, int] = {}
    found: dict[nn.Parameter, int] = {}
    for name, parameter in named:
        layer = _layer(_path(name), blocks)
        if layer and layer not in layers and parameter not in found and parameter.ndim > 1:
            layers[layer] = len(layers)
        found.setdefault(parameter, layers.get(layer, max(len(layers) - 1, 0)))
    last = max(found.values(), default=0)
    return {parameter: decay ** (last - depth) for parameter, depth in found.items()}


def _path(name: str) -> str:
    return name.rpartition(".")[0]


def _layer(path: str, blocks: Sequence[str]) -> str:
    """Returns the innermost block around a module, or the module itself where there is none."""
    around = [block for block in blocks if f"{path}.".startswith(f"{block}.")]
    return max(around, key=len, default=path)


def _in_order(network: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Returns all parameters by name, in the order of their first use in a graph, and of a plain module as it lists them."""
    named = list(network.named_parameters(remove_duplicate=False))
    if not isinstance(network, Graph):
        return named
    places: dict[fx.Node, int] = {node: place for place, node in enumerate(network.program.graph.nodes)}
    first: dict[int, int] = {}  # by the parameter itself, which may have several names
    for node in places:
        if node.op == "get_attr":
            used = min((places[user] for user in node.users), default=len(places))
            tensor = id(network.tensor(str(node.target)))
            first[tensor] = min(used, first.get(tensor, used))
    return sorted(named, key=lambda one: first.get(id(one[1]), len(places)))
