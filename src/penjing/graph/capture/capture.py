"""From a user's `nn.Module` to a `Graph`: export, normalise, and prove that both give the same outputs."""

import inspect
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from penjing.checks import PATTERNS, a, checked, either, mapping, optional
from penjing.errors import PenjingError
from penjing.graph import modes, propagation
from penjing.graph.capture.advice import advice
from penjing.graph.capture.bags import write_out_bags
from penjing.graph.capture.constants import fold
from penjing.graph.capture.described_inputs import describe_inputs
from penjing.graph.capture.dynamic_axes import (
    batch_size,
    check_dynamic,
    check_freed,
    limits_batch,
    positional_names,
    with_batch,
    with_other_batch,
)
from penjing.graph.capture.exporting import Uncapturable, exported_program
from penjing.graph.capture.fixed_batch import noting_sizes, why_fixed
from penjing.graph.capture.normalize import inline_regions, normalize
from penjing.graph.capture.parts import CapturedPart, Given, Parts, largest_capturable, model_names, record, share
from penjing.graph.capture.recurrent_cells import write_out_cells
from penjing.graph.capture.user_code import at_user_line, lost_in_training, source_line
from penjing.graph.capture.verify import call_copied, copied, verify, verify_other_sizes
from penjing.graph.doors import AXES, CAPTURABLE
from penjing.graph.graph import Graph
from penjing.graph.inputs import Signature

log = logging.getLogger(__name__)


@checked(
    model=either(a(Graph, "a graph"), CAPTURABLE),
    kwargs=optional(a(Mapping, "a mapping of inputs by name")),
    dynamic=optional(mapping(AXES, "a mapping from inputs' names to sequences of axes")),
    part=optional(either(PATTERNS, CAPTURABLE)),
)
def capture(
    model: nn.Module,
    example_inputs: Tensor | Sequence[Any] | Mapping[str, Any],
    *,
    kwargs: Mapping[str, Any] | None = None,
    dynamic: Mapping[str, Sequence[int]] | None = None,
    part: str | Sequence[str] | nn.Module | None = None,
) -> Graph:
    """Captures a model as a trainable graph. The model itself is not changed, and shares nothing with the graph.

    Args:
        model: any `nn.Module` that `torch.export` can trace.
        example_inputs: one tensor, a sequence of positional inputs, or a mapping of keyword inputs. The first axis of
            the tensors that share the first one's batch size is free; an example batch of 1 is repeated.
        kwargs: further keyword inputs.
        dynamic: further free axes by input name, e.g. `{"tokens": (0, 1)}` for sequences of any length. Axes whose sizes
            the model wants to be equal are tried together.
        part: what to capture where the whole can't be captured, because its code depends on the data. The path of a
            module (`"backbone"`), or several in the order in which they are called: the model runs once on the example
            inputs, and the graph takes what these modules are given and returns what the rest of the model uses of
            their results. Or a module of yours that calls modules of `model`; the example inputs are then its own.
            `graph.write_into(model)` puts the result back into the whole.

    Returns:
        The graph, in evaluation mode, checked against the model at several batch sizes. Where the model itself fixes
        its batch, or computes something else at other sizes, `graph.batch` holds the example's, and a warning names the
        line. Weights that the model computes from its parameters (weight norm, say) are parameters of the graph, under
        the names that layers give them (`graph.folded` says from what).

    Raises:
        PenjingError: the model can't be captured (with the line of the user's code), or behaves differently as a graph.
    """
    if isinstance(model, Graph):
        raise PenjingError("This is a graph already; capture takes the original nn.Module.")
    args, keywords = _call(example_inputs, kwargs)
    whole = None if part is None else model
    with _evaluating(model):
        how = CapturedPart() if isinstance(part, nn.Module) else None
        if isinstance(part, nn.Module):
            model = part
        elif part is not None:
            _try_model(model, args, keywords)
            how, given = record(model, [part] if isinstance(part, str) else part, *copied(args, keywords))
            model, args, keywords = _alone(model, how, given)
        with _evaluating(model):
            graph = _captured(model, args, keywords, dynamic or {}, whole)
    graph.part = how
    return graph


def _alone(
    model: nn.Module, part: CapturedPart, given: tuple[Tensor, ...]
) -> tuple[nn.Module, tuple[Any, ...], dict[str, Any]]:
    """Returns the part as a module, and the inputs of its own."""
    module = part.of(model)
    if isinstance(module, Parts):
        return module, given, {}
    (call,) = part.calls
    leaves = [given[leaf.position] if isinstance(leaf, Given) else leaf for leaf in call.leaves]
    args, keywords = pytree.tree_unflatten(leaves, call.spec)
    return module, args, keywords


def _captured(
    model: nn.Module,
    args: tuple[Any, ...],
    keywords: dict[str, Any],
    dynamic: Mapping[str, Sequence[int]],
    whole: nn.Module | None,
) -> Graph:
    """Captures with a free batch, or else with the batch that the model fixes; `whole` is what it is a part of."""
    _try_model(model, args, keywords)
    graph, error = _capture_with_free_batch(model, args, keywords, dynamic, whole)
    if graph is None:
        try:
            graph, _ = _export(model, args, keywords, dynamic, free_batch=False, whole=whole)
        except Uncapturable as failure:
            raise PenjingError(f"{failure}\n{_hint(failure, model, args, keywords, whole)}") from failure.__cause__
        verify(model, graph, args, keywords)
        if graph.batch is not None:
            _warn_of_batch(model, args, keywords, dynamic, error)
    verify_other_sizes(model, graph, args, keywords, dynamic)
    return graph


def _warn_of_batch(
    model: nn.Module,
    args: tuple[Any, ...],
    keywords: dict[str, Any],
    dynamic: Mapping[str, Sequence[int]],
    error: Exception | None,
) -> None:
    """Warns that a model's code fixes its batch. Export is asked once more, as its notes are slow to make."""
    size = batch_size(args, keywords)
    assert size is not None  # or there were no batch to be fixed
    usual = max(size, 2)
    with noting_sizes() as sizes:
        try:
            exported_program(
                model, *with_batch(model, (args, keywords), dynamic, size, usual), dynamic, free_batch=True
            )
        except Uncapturable as failure:
            error = error or failure
    warnings.warn(why_fixed(type(model).__name__, usual, size, error, sizes), stacklevel=5)


def _hint(
    error: Uncapturable, model: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any], whole: nn.Module | None
) -> str:
    """Says what to do about a model that can't be captured."""

    def captures(module: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any]) -> bool:
        try:
            _export(module, args, keywords, {}, free_batch=False)
        except PenjingError:
            return False
        return True

    def together(paths: list[str]) -> bool:
        how, given = record(model, paths, *copied(args, keywords))
        return captures(*_alone(model, how, given))

    paths = largest_capturable(model, *copied(args, keywords), captures, together)
    if not paths:
        return advice(error)
    held = share(model, paths)
    if whole is not None:
        names = model_names(model, whole)[1]
        paths = [names.get(path, path) for path in paths]
    what = f"module '{paths[0]}'" if len(paths) == 1 else f"modules {', '.join(paths)}"
    return (
        f"{advice(error)}\nOr leave that code out: the largest part without it is the {what} ({held:.0%} of the "
        f"parameters); capture it alone with part={(paths[0] if len(paths) == 1 else paths)!r}."
    )


def _call(example: Any, kwargs: Mapping[str, Any] | None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(example, Tensor):
        args: tuple[Any, ...] = (example,)
        keywords: dict[str, Any] = {}
    elif isinstance(example, Mapping):
        args, keywords = (), dict(example)
    elif isinstance(example, Sequence) and not isinstance(example, str):
        args, keywords = tuple(example), {}
    else:
        raise PenjingError(
            f"example_inputs must be a tensor, a sequence of inputs or a mapping of them, not {type(example).__name__}."
        )
    keywords.update(kwargs or {})
    if not any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves((args, keywords))):
        raise PenjingError("example_inputs hold no tensor; give the model's inputs as it is called.")
    return args, keywords


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, without fused attention shortcuts; afterwards flags and buffers are as they were, also the buffers
    of a model that counts its calls.
    """
    flags = {module: module.training for module in model.modules()}
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    fast = torch.backends.mha.get_fastpath_enabled()
    model.eval()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for module, flag in flags.items():
            module.training = flag
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)


def _try_model(model: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
    try:
        call_copied(model, args, keywords)
    except Exception as error:
        raise PenjingError(
            f"The model fails on its example inputs: {type(error).__name__}: {error}{at_user_line(error)}"
        ) from error


def _capture_with_free_batch(
    model: nn.Module,
    args: tuple[Any, ...],
    keywords: dict[str, Any],
    dynamic: Mapping[str, Sequence[int]],
    whole: nn.Module | None,
) -> tuple[Graph | None, Exception | None]:
    """Returns the graph with its batch axis free, or None where one graph can't stand for the model at every batch, and
    what showed that.
    """
    size = batch_size(args, keywords)
    if size is None:
        return None, None
    usual = max(size, 2)
    call = with_batch(model, (args, keywords), dynamic, size, usual)
    try:
        graph, limited = _export(model, *call, dynamic, free_batch=True, whole=whole)
    except (PenjingError, RuntimeError) as error:  # what has nothing to do with the batch fails with a fixed one too
        log.info("%s can't be captured with a free batch: %s", type(model).__name__, error)
        return None, error
    if graph.batch is not None:
        return None, None
    trials = {batch: with_other_batch(graph, call, usual, batch) for batch in (usual, 1, usual + 1, 2)}
    # One sample takes the least memory, but it fits constants of any size, and some models drop an axis of size 1.
    if not limited and propagation.runs(graph, usual + 1) and not _differ(model, graph, trials[usual], trials[1]):
        return graph, None
    different = _differ(model, graph, *(trials[batch] for batch in (usual, usual + 1, 2)))
    return (graph, None) if different is None else (None, different)


def _differ(model: nn.Module, graph: Graph, *trials: tuple[tuple[Any, ...], dict[str, Any]]) -> Exception | None:
    """Returns what shows that model and graph don't both work on all of these inputs and give the same."""
    try:
        for trial in trials:
            verify(model, graph, *trial)
    except Exception as error:  # whatever a model raises at a size that it wasn't written for
        log.info("%s and its graph don't agree: %s", type(model).__name__, error)
        return error
    return None


def _export(
    model: nn.Module,
    args: tuple[Any, ...],
    keywords: dict[str, Any],
    dynamic: Mapping[str, Sequence[int]],
    *,
    free_batch: bool,
    whole: nn.Module | None = None,
) -> tuple[Graph, bool]:
    """Returns the graph, and whether export found that the model looks at how large the batch is."""
    order = tuple(inspect.signature(model.forward).parameters)
    leaves, spec = pytree.tree_flatten((args, keywords))
    positional = positional_names(model, len(args))
    check_dynamic(dynamic, dict(zip([*positional, *keywords], [*args, *keywords.values()], strict=True)))
    exported, module = exported_program(model, args, keywords, dynamic, free_batch=free_batch)
    graph = _build(model, exported, module, leaves, Signature(spec, (), positional, order), whole)
    check_freed(graph, dynamic)
    return graph, limits_batch(exported)


def _build(
    model: nn.Module,
    exported: ExportedProgram,
    module: fx.GraphModule,
    leaves: list[Any],
    signature: Signature,
    whole: nn.Module | None,
) -> Graph:
    nodes = module.graph
    inline_regions(nodes)
    for node in nodes.nodes:
        _describe(node, model)
    given, free = describe_inputs(nodes, leaves)
    normalize(nodes)
    write_out_cells(nodes)
    write_out_bags(nodes)
    modes.mark(nodes)
    tensors, transient = _tensors(model, module, nodes)
    if whole is not None:
        names, paths = model_names(model, whole)
        tensors = {names.get(name, name): tensor for name, tensor in tensors.items()}
        for node in nodes.nodes:
            node.meta["module"] = _moved(node.meta["module"], paths)
            if node.op == "get_attr":
                node.target = names.get(str(node.target), node.target)
    tensors, folded, masks = fold(nodes, tensors, model if whole is None else whole)
    graph = Graph(
        nodes,
        tensors,
        replace(signature, leaves=given),
        exported.call_spec.out_spec,
        batch=None if free else batch_size(tuple(leaf for leaf in leaves if isinstance(leaf, Tensor)), {}),
        transient=transient,
        lost_in_training=lost_in_training(model),
        name=type(model).__name__,
        folded=folded,
    )
    graph.masks = masks
    return graph.refresh()


def _moved(path: str, paths: Mapping[str, str]) -> str:
    """Returns the whole model's path for a module of a part, or of one that is inside of such a module."""
    known = path
    while known and known not in paths:
        known = known.rpartition(".")[0]
    return (paths.get(known, "") + path[len(known) :]).lstrip(".") if known in paths else path


def _describe(node: fx.Node, model: nn.Module) -> None:
    """Notes the user's module path, the user's line and the attention dropout on a node."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path = str(stack[-1][0]).removeprefix("L['self']").lstrip(".") if stack else ""
    path = "" if path.startswith("_empty_nn_module_stack") else path  # export's name for none
    node.meta["module"] = path
    node.meta["source"] = source_line(node.meta.get("stack_trace") or "")
    if node.target in modes.DROPOUT_PROBABILITY:
        owner: Any = model.get_submodule(path)
        for attribute in ("dropout", "attn_drop", "attention_dropout"):
            value = getattr(owner, attribute, 0.0)
            probability = value.p if isinstance(value, nn.Dropout) else value
            if isinstance(probability, float) and probability > 0:
                node.meta[modes.TRAINING_DROPOUT] = probability
    for key in ("nn_module_stack", "stack_trace", "source_fn_stack", "torch_fn", "from_node", "unbacked_bindings"):
        node.meta.pop(key, None)


def _tensors(model: nn.Module, module: fx.GraphModule, nodes: fx.Graph) -> tuple[dict[str, Tensor], set[str]]:
    """Copies the model's state (ties kept) and the constants of the graph. Second: names that are not state."""
    memo: dict[int, Tensor] = {}

    def own(tensor: Tensor) -> Tensor:
        if id(tensor) not in memo:
            copied = tensor.detach().clone()
            memo[id(tensor)] = (
                nn.Parameter(copied, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else copied
            )
        return memo[id(tensor)]

    state = model.state_dict(keep_vars=True)
    tensors = {name: own(tensor) for name, tensor in state.items() if isinstance(tensor, Tensor)}
    for node in nodes.nodes:
        if node.op == "get_attr" and str(node.target) not in tensors:
            tensors[str(node.target)] = own(_attribute(module, str(node.target)))
    return tensors, set(tensors) - set(state)


def _attribute(module: nn.Module, path: str) -> Tensor:
    value: Any = module
    for name in path.split("."):
        value = getattr(value, name)
    if not isinstance(value, Tensor):
        raise PenjingError(f"The model holds '{path}' of type {type(value).__name__}, which is no tensor.")
    return value
