"""From settings to options: which layer gets which ranks, and which is left alone and why."""

from collections.abc import Iterator, Mapping

from penjing.data import Data
from penjing.errors import unknown_name
from penjing.evidence import Evidence
from penjing.factorization.decompositions import Decomposition
from penjing.factorization.layers import Layer, layers, size
from penjing.factorization.metrics import begin, goal, metrics
from penjing.factorization.settings import FactorizationSettings
from penjing.graph import Graph, Option, Place


def options_for(graph: Graph, settings: FactorizationSettings, data: Data | None) -> list[Option]:
    """Returns an option for every layer in scope, in the order in which the graph computes them.

    Raises:
        PenjingError: a given rank is out of its range, or a layer that ranks are given for isn't there.
    """
    found = layers(graph, include=settings.include, exclude=settings.exclude)
    given = _given(settings, found)
    metric = settings.metric_for(data)
    fitting: dict[str, tuple[str, Decomposition]] = {}
    reasons: dict[str, str] = {}
    for path, layer in found.items():
        if isinstance(settings.ranks, Mapping) and path not in given:
            continue
        name, decomposition = settings.decomposition_for(layer)
        reason = layer.reason or decomposition.unfit(layer.shape)
        if reason:
            reasons[path] = reason
        else:
            fitting[path] = name, decomposition
    return list(_options(graph, settings, data, metric, found, fitting, reasons, given))


def _options(
    graph: Graph,
    settings: FactorizationSettings,
    data: Data | None,
    metric: str,
    found: Mapping[str, Layer],
    fitting: Mapping[str, tuple[str, Decomposition]],
    reasons: Mapping[str, str],
    given: Mapping[str, tuple[int, ...]],
) -> Iterator[Option]:
    rule = settings.rule
    looked = "outputs" if metric == "asymmetric" else metric  # ranks are chosen before anything is approximated
    judge = metrics["weights" if rule is None or rule.entry.by_shape else looked].function()
    if rule is not None:
        begin(judge, Evidence(graph, (), data, settings.batches, settings.seed), [found[path] for path in fitting])
    for path, layer in found.items():
        place = Place("weight", path)
        if path in reasons:
            name, _ = settings.decomposition_for(layer)
            yield Option(place, "factorize", settings.setting(name, metric), None, None, {"reason": reasons[path]})
        elif path in fitting:
            name, decomposition = fitting[path]
            setting, full = settings.setting(name, metric), decomposition.full(layer.shape)
            if rule is None:
                ranks = given[path]
                decomposition.check(layer.shape, ranks, path)
            else:
                ranks = rule.ranks(
                    decomposition, goal(judge, layer, graph, graph).weighting, layer.stride, settings.step_for(full)
                )
                if decomposition.cost(layer.shape, ranks, layer.stride) >= size(layer.shape):
                    yield Option(place, "factorize", setting, None, None, {"reason": "no gain"})
                    continue
            saved = size(layer.shape) - sum(size(one.weight) for one in decomposition.shapes(layer.shape, ranks))
            after = list(ranks)
            yield Option(place, "factorize", {**setting, "ranks": after}, list(full), after, {"saves_params": saved})


def _given(settings: FactorizationSettings, found: Mapping[str, Layer]) -> dict[str, tuple[int, ...]]:
    """Returns the ranks that the user gave, by layer; none where a rule finds them.

    Raises:
        PenjingError: a layer isn't there.
    """
    ranks = settings.ranks
    if isinstance(ranks, str):
        return {}
    by_path = ranks if isinstance(ranks, Mapping) else dict.fromkeys(found, ranks)
    for path in by_path:
        if path not in found:
            raise unknown_name("layer", path, found)
    spread: dict[str, tuple[int, ...]] = {}
    for path, one in by_path.items():
        _, decomposition = settings.decomposition_for(found[path])
        if isinstance(one, int) and not decomposition.unfit(found[path].shape):
            spread[path] = (one,) * len(decomposition.full(found[path].shape))
        else:
            spread[path] = (one,) if isinstance(one, int) else tuple(one)
    return spread
