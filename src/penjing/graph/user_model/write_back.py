"""A compressed graph written back into the user's own `nn.Module`: tensors, sizes of standard layers, and the proof.

Only what an `nn.Module` can hold goes back: parameters, buffers, the attributes of PyTorch's layers, and sizes that modules
of the user's keep as attributes (see `user_sizes`). Sizes that stand in the model's own code can't be changed from here;
where they matter the model is left as it was.
"""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from penjing.checks import checked
from penjing.errors import PenjingError, unknown_name
from penjing.graph.capture.capture import capture
from penjing.graph.capture.parts import Parts
from penjing.graph.capture.user_code import at_user_line
from penjing.graph.capture.verify import TOLERANCE, close
from penjing.graph.channels.rules.convolution import whole_groups
from penjing.graph.doors import TRAINED
from penjing.graph.user_model.changes import Changes
from penjing.graph.user_model.computed_weights import give_back
from penjing.graph.user_model.user_sizes import user_sizes

if TYPE_CHECKING:
    from penjing.graph.graph import Graph

log = logging.getLogger(__name__)

GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}
KEPT = "num_batches_tracked"  # counts what the user's model has seen; a graph doesn't


@checked(model=TRAINED)
def write_into(graph: "Graph", model: nn.Module, part: str | nn.Module | None = None) -> nn.Module:
    """Replaces the parameters and buffers of `model` by those of `graph`, and the sizes of its layers accordingly.

    A weight that the model computes (weight norm, say) goes back through the right inverse of what computes it; where that
    can't give the new weight it is removed, with a warning, and the weight is a plain parameter.

    Args:
        graph: a graph that was captured from `model` (or from one like it) and then changed.
        model: the user's model, the whole also where `graph` is of a part of it. Its parameters become new objects, so
            an optimiser must be made anew.
        part: what `graph` is a graph of, as it was given to `capture`: needed for a wrapper of your own, and for a part
            that is called with objects that a file can't hold, once it was saved and loaded.

    Returns:
        The model itself.

    Raises:
        PenjingError: the model can't hold the graph, or computes something else with its tensors; it is then as before.
    """
    captured = _captured(graph, model, part)
    failure: Misfit | None = None
    for attributes in _attributes(graph, model, captured):
        old = [(module, name, module.__dict__[name]) for module, name, _ in attributes]
        try:
            _write(graph, model, captured, attributes)
        except Misfit as misfit:
            failure = misfit
        else:
            _put_back_needless(graph, model, captured, old)
            return model
    assert failure is not None  # at least one try was made
    raise failure


def _put_back_needless(
    graph: "Graph", model: nn.Module, captured: nn.Module, old: Sequence[tuple[nn.Module, str, Any]]
) -> None:
    """Gives attributes their old values again where the outputs don't need the new ones: they count something else."""
    for module, name, value in old:
        new, module.__dict__[name] = module.__dict__[name], value
        try:
            _compare(graph, model, captured)
        except Misfit:
            module.__dict__[name] = new


class Misfit(PenjingError):
    """The model fails, or computes something else, with the graph's tensors."""


def _write(
    graph: "Graph", model: nn.Module, captured: nn.Module, attributes: Sequence[tuple[nn.Module, str, Any]]
) -> None:
    changes = Changes()
    computed: list[str] = []
    try:
        removed, computed = _write_tensors(graph, model, changes)
        for module in model.modules():
            _write_sizes(module, changes)
        for module, name, value in attributes:
            changes.set(module.__dict__, name, value)
        _compare(graph, model, captured)
    except Misfit as misfit:
        changes.restore()
        raise misfit if not computed else Misfit(f"{misfit}\n{_computed_in_forward(graph, computed)}") from misfit
    except BaseException:
        changes.restore()
        raise
    for name, what in removed.items():
        warnings.warn(
            f"{what} was removed from '{name.rpartition('.')[0]}': it can't compute the new weight, so '{name}' is a plain "
            "parameter of the model now.",
            stacklevel=3,
        )


def _computed_in_forward(graph: "Graph", names: Sequence[str]) -> str:
    """Says of weights that the model's own code computes what can be done about them."""
    sources = ", ".join(dict.fromkeys(source for name in names for source in graph.folded[name].sources))
    return (
        f"The model's own code computes {', '.join(repr(name) for name in names[:3])}{' and more' * (len(names) > 3)} from "
        f"{sources}, and how to turn that round isn't known. Before capture, put plain layers in their place that hold "
        "the computed weights, or a torch.nn.utils.parametrize parametrization with a right_inverse."
    )


def _attributes(graph: "Graph", model: nn.Module, captured: nn.Module) -> Iterator[list[tuple[nn.Module, str, Any]]]:
    """Gives what attributes of the model's own modules may have to become: none at first, then the surer answer first."""
    yield []
    args, kwargs = graph.example_call(graph.batch)
    part = None if captured is model else captured
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the first capture said what there is to say
            now = capture(model, args, kwargs=None if isinstance(part, Parts) else kwargs, part=part)
    except PenjingError as error:  # on inputs of random values, which a model may refuse; what failed first says more
        log.info("the sizes that modules keep can't be told: %s", error)
        return
    for ambiguous in (False, True):
        attributes = list(user_sizes(now, graph, model, ambiguous=ambiguous))
        if attributes:
            yield attributes


def _captured(graph: "Graph", model: nn.Module, part: str | nn.Module | None) -> nn.Module:
    """Returns what of `model` the graph is a graph of."""
    if isinstance(part, nn.Module):
        return part
    if part is not None and not isinstance(part, str):
        raise PenjingError("write_into takes one module path as part=…, or a module that calls several.")
    if part is not None:
        modules = dict(model.named_modules())
        if part not in modules:
            raise unknown_name("module path", part, [path for path in modules if path])
        return modules[part]
    return model if graph.part is None else graph.part.of(model)


def _write_tensors(graph: "Graph", model: nn.Module, changes: Changes) -> tuple[dict[str, str], list[str]]:
    """Returns, by weight, what was removed that computed it, and the weights that the model's own code computes."""
    tensors = graph.tensors()
    computed: list[str] = []
    removed: dict[str, str] = {}
    modules = dict(model.named_modules())
    for name in [name for name in graph.folded if name in tensors]:
        path, _, leaf = name.rpartition(".")
        value = tensors[name].to(next((p.device for p in model.parameters()), tensors[name].device))
        what = give_back(modules[path], leaf, value, graph.folded[name], changes) if path in modules else None
        if what is None:
            computed.append(name)
            continue
        del tensors[name]
        if what:
            removed[name] = what
    tied = {
        id(old): tensors[name]
        for name, old in model.state_dict(keep_vars=True).items()
        if name in tensors and name.rpartition(".")[2] != KEPT
    }
    written: dict[int, Tensor] = {}
    held: set[str] = set()
    for path, module in model.named_modules(remove_duplicate=False):
        for table in (module._parameters, module._buffers):
            for name, old in table.items():
                full = f"{path}.{name}" if path else name
                held.add(full)
                new = tensors.get(full, tied.get(id(old)))
                if new is None or name == KEPT:
                    continue
                if id(new) not in written:
                    copied = new.detach().clone().to(new.device if old is None else old.device)
                    written[id(new)] = (
                        nn.Parameter(copied, new.requires_grad) if table is module._parameters else copied
                    )
                changes.set(table, name, written[id(new)])
    homeless = sorted(set(tensors) - held - graph.transient())
    if homeless:
        more = f" and {len(homeless) - 1} more" if len(homeless) > 1 else ""
        readers = (n for n in graph.program.graph.nodes if homeless[0] in [str(i.target) for i in n.all_input_nodes])
        line = next((f" (read at {n.meta['source']})" for n in readers if n.meta.get("source")), "")
        raise PenjingError(
            f"The model has no place for {homeless[0]}{more}{line}: the graph has layers that the model hasn't, or "
            "computes with positions of channels that the model's code counts by itself. Keep those channels "
            "(exclude=…), or save the graph itself."
        )
    return removed, computed


def _shape(module: nn.Module) -> tuple[int, ...]:
    return tuple(module.weight.shape)  # type: ignore[union-attr, arg-type]


def _convolution(module: Any) -> dict[str, Any]:
    first, second = _shape(module)[:2]
    outputs, inputs, groups = module.out_channels, module.in_channels, module.groups
    if isinstance(module, nn.modules.conv._ConvTransposeNd):
        groups = first * groups // inputs if whole_groups(groups, inputs // groups, outputs // groups) else groups
        return {"in_channels": first, "out_channels": second * groups, "groups": groups}
    groups = first * groups // outputs if whole_groups(groups, inputs // groups, outputs // groups) else groups
    return {"in_channels": second * groups, "out_channels": first, "groups": groups}


def _linear(module: Any) -> dict[str, Any]:
    return {"out_features": _shape(module)[0], "in_features": _shape(module)[1]}


def _per_channel(module: Any) -> dict[str, Any]:
    held = [t for t in (module.weight, module.running_mean) if t is not None]
    return {"num_features": len(held[0])} if held else {}


def _over_last(module: Any) -> dict[str, Any]:
    return {"normalized_shape": _shape(module)} if module.weight is not None else {}


def _group_norm(module: Any) -> dict[str, Any]:
    if module.weight is None:
        return {}
    channels, size = len(module.weight), module.num_channels // module.num_groups
    groups = module.num_groups if size > module.num_groups else channels // size  # as the rule of channels takes them
    return {"num_channels": channels, "num_groups": groups}


def _embedding(module: Any) -> dict[str, Any]:
    return {"num_embeddings": _shape(module)[0], "embedding_dim": _shape(module)[1]}


def _recurrent(module: Any) -> dict[str, Any]:
    hidden, inputs = len(module.weight_hh_l0) // GATES[module.mode], int(module.weight_ih_l0.shape[1])
    projected = {"proj_size": len(module.weight_hr_l0)} if module.proj_size else {}
    return {"hidden_size": hidden, "input_size": inputs, **projected}


def _recurrent_cell(module: Any) -> dict[str, Any]:
    return {"hidden_size": int(module.weight_hh.shape[1]), "input_size": int(module.weight_ih.shape[1])}


def _prelu(module: Any) -> dict[str, Any]:
    return {"num_parameters": _shape(module)[0]}


SIZES: tuple[tuple[type, Callable[[Any], dict[str, Any]]], ...] = (
    (nn.modules.conv._ConvNd, _convolution),
    (nn.Linear, _linear),
    (nn.modules.batchnorm._NormBase, _per_channel),
    (nn.LayerNorm, _over_last),
    (nn.RMSNorm, _over_last),
    (nn.GroupNorm, _group_norm),
    (nn.Embedding, _embedding),
    (nn.EmbeddingBag, _embedding),
    (nn.PReLU, _prelu),
    (nn.RNNBase, _recurrent),
    (nn.RNNCellBase, _recurrent_cell),
)
"""The attributes of PyTorch's layers that repeat a size, from the tensors that the layer holds now."""


def _write_sizes(module: nn.Module, changes: Changes) -> None:
    for kind, sizes in SIZES:
        if isinstance(module, kind):
            for name, value in sizes(module).items():
                changes.set(module.__dict__, name, value)
    if isinstance(module, nn.RNNBase):
        changes.set(module.__dict__, "_flat_weights", [getattr(module, name) for name in module._flat_weights_names])


def _beside(module: nn.Module, call: Any) -> Any:
    """Returns the inputs of a call on the device where the module's parameters are."""
    device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
    return pytree.tree_map_only(Tensor, lambda tensor: tensor.to(device), call)


def _compare(graph: "Graph", model: nn.Module, captured: nn.Module) -> None:
    call = graph.example_call(graph.batch)
    with _evaluating(graph), _evaluating(model), _evaluating(captured), torch.no_grad():
        args, kwargs = _beside(graph, call)
        expected = pytree.tree_map_only(Tensor, Tensor.cpu, pytree.tree_leaves(graph(*args, **kwargs)))
        try:
            args, kwargs = _beside(captured, call)
            actual = pytree.tree_map_only(Tensor, Tensor.cpu, pytree.tree_leaves(captured(*args, **kwargs)))
        except Exception as error:
            raise Misfit(
                f"The model's code fixes a size that the graph no longer has, in "
                f"{_failing(model, error)}{at_user_line(error, ' at ')}: {type(error).__name__}: {error}\n"
                "The model was left as it was. Keep those channels (exclude=…), or save the graph itself."
            ) from error
        same = len(expected) == len(actual) and all(
            not isinstance(want, Tensor) or (isinstance(have, Tensor) and close(have, want, TOLERANCE))
            for want, have in zip(expected, actual, strict=True)
        )
        if not same:
            raise Misfit(
                f"With the graph's tensors the model computes something else, first in {_first_other(graph, model, captured)}; "
                "the model was left as it was. Its code may fix a size or a position that changed, or the graph holds "
                "ops that the model hasn't. Save the graph itself instead."
            )


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    flags = {inner: inner.training for inner in module.modules()}
    module.eval()
    try:
        yield
    finally:
        module.train(flags[module])  # a graph's mode stands in its nodes, not in the flags alone
        for inner, flag in flags.items():
            inner.training = flag


def _failing(model: nn.Module, error: BaseException) -> str:
    """Names the innermost module of the user's own that was at work."""
    paths = {id(module): path for path, module in model.named_modules()}
    found = f"the model ({type(model).__name__})"
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        owner = trace.tb_frame.f_locals.get("self")
        if id(owner) in paths and not type(owner).__module__.startswith("torch.nn.") and paths[id(owner)]:
            found = f"module '{paths[id(owner)]}' ({type(owner).__name__})"
        trace = trace.tb_next
    return found


def _first_other(graph: "Graph", model: nn.Module, captured: nn.Module) -> str:
    """Names the first module whose output differs from that of its last node in the graph."""
    last = {node.meta.get("module", ""): node.name for node in graph.program.graph.nodes if node.op == "call_function"}
    last = {path: name for path, name in last.items() if path}
    outputs: dict[str, list[Any]] = {}
    modules = dict(model.named_modules())

    def noting(path: str) -> Any:
        return lambda _module, _inputs, output: outputs.setdefault(path, []).append(output)

    handles = [modules[path].register_forward_hook(noting(path)) for path in last if path in modules]
    args, kwargs = graph.example_call(graph.batch)
    try:
        captured(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    _, taps = graph.with_outputs(list(dict.fromkeys(last.values())))(*args, **kwargs)
    for path, name in last.items():
        have, want = outputs.get(path, []), taps[name]
        if len(have) == 1 and isinstance(have[0], Tensor) and not close(have[0], want, TOLERANCE):
            return f"module '{path}'"
    return f"the model ({type(model).__name__})"
