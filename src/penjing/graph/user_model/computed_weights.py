"""Folded weights given back to the modules that compute them: through the right inverse of what computes them, or for it.

`constants` folds what a model computes from its parameters alone into one weight. Here the weight goes back.
"""

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from penjing.graph.capture.constants import Folded
from penjing.graph.capture.verify import close
from penjing.graph.user_model.changes import Changes

log = logging.getLogger(__name__)

EXACT = 1e-5  # share of the largest weight: the most by which a right inverse may miss the weight


def give_back(owner: nn.Module, leaf: str, value: Tensor, folded: Folded, changes: Changes) -> str | None:
    """Writes a folded weight into the module that computes it.

    Args:
        owner: the module.
        leaf: the weight's name there.
        value: the weight.
        folded: what it was computed from.
        changes: notes what is changed.

    Returns:
        What was removed from the module since it couldn't give this weight, "" where nothing was; None if the module
        computes its weight by none of PyTorch's means.
    """
    if folded.order and leaf in owner._parameters:
        back = [folded.order.index(axis) for axis in range(len(folded.order))]
        changes.set(owner._parameters, leaf, _parameter(value.permute(back), value))
        return ""
    if parametrize.is_parametrized(owner, leaf):
        return _parametrized(owner, leaf, value, changes)
    for key, hook in owner._forward_pre_hooks.items():
        for kind, name, give in HOOKS:
            if isinstance(hook, kind) and getattr(hook, name) == leaf:
                return give(owner, leaf, value, changes, key)
    return None


def _parameter(value: Tensor, like: Tensor) -> nn.Parameter:
    return nn.Parameter(value.detach().clone(memory_format=torch.contiguous_format), like.requires_grad)


def _parametrized(owner: nn.Module, leaf: str, value: Tensor, changes: Changes) -> str:
    mark = changes.mark()
    parametrizations: Any = owner.parametrizations[leaf]  # type: ignore[index]
    if _invert(parametrizations, value, changes):
        return ""
    changes.restore(mark)
    names = ", ".join(type(one).__name__.lstrip("_") for one in parametrizations)
    every: Any = owner.parametrizations
    kind: Any = type(owner)
    changes.keep(every._modules, owner._modules, owner._parameters)
    if len(every) == 1:
        del owner._modules["parametrizations"]
        changes.retype(owner, kind.__bases__[0])
    else:
        del every._modules[leaf]
        rest = {name: held for name, held in kind.__dict__.items() if name not in (leaf, "__dict__", "__weakref__")}
        changes.retype(owner, type(kind.__name__, kind.__bases__, rest))
    owner._parameters[leaf] = _parameter(value, value)
    return names


def _invert(parametrizations: Any, value: Tensor, changes: Changes) -> bool:
    """Sets what a parametrisation starts from by its right inverse; tells whether it then gives the value."""
    training = parametrizations.training
    parametrizations.eval()
    try:
        with torch.no_grad():
            originals: Any = value.detach().clone()
            for one in reversed(list(parametrizations)):
                originals = one.right_inverse(originals)
            several = not isinstance(originals, Tensor)
            named = {f"original{i}": one for i, one in enumerate(originals)} if several else {"original": originals}
            for name, tensor in named.items():
                changes.set(parametrizations._parameters, name, _parameter(tensor, parametrizations._parameters[name]))
            return close(parametrizations(), value, EXACT)
    except Exception as error:  # a parametrization of the user's, or of other sizes, may fail in any way
        log.info("%s can't give the new weight: %s", type(parametrizations).__name__, error)
        return False
    finally:
        parametrizations.train(training)


def _weight_normed(owner: nn.Module, leaf: str, value: Tensor, changes: Changes, key: int) -> str:
    dim = owner._forward_pre_hooks[key].dim  # type: ignore[attr-defined]
    for name, tensor in ((f"{leaf}_g", torch.norm_except_dim(value.detach(), 2, dim)), (f"{leaf}_v", value)):
        changes.set(owner._parameters, name, _parameter(tensor, value))
    _set_computed(owner, leaf, value, changes)
    return ""


def _pruned(owner: nn.Module, leaf: str, value: Tensor, changes: Changes, key: int) -> str:
    changes.set(owner._parameters, f"{leaf}_orig", _parameter(value, value))
    changes.set(owner._buffers, f"{leaf}_mask", (value != 0).to(value.dtype))
    _set_computed(owner, leaf, value, changes)
    return ""


def _set_computed(owner: nn.Module, leaf: str, value: Tensor, changes: Changes) -> None:
    """Sets the plain attribute in which a hook leaves the weight, which the next call computes anew."""
    changes.keep(owner.__dict__)
    owner.__dict__[leaf] = value.detach().clone()


def _spectral_normed(owner: nn.Module, leaf: str, value: Tensor, changes: Changes, key: int) -> str:
    tables = (owner._forward_pre_hooks, owner._state_dict_hooks, owner._load_state_dict_pre_hooks)
    changes.keep(owner.__dict__, owner._parameters, owner._buffers, *tables)
    del owner._forward_pre_hooks[key]
    for table in tables[1:]:
        for other, hook in list(table.items()):
            held = getattr(getattr(hook, "hook", hook), "fn", None)
            if isinstance(held, SpectralNorm) and held.name == leaf:
                del table[other]
    del owner._parameters[f"{leaf}_orig"]
    for name in (f"{leaf}_u", f"{leaf}_v"):
        owner._buffers.pop(name, None)
    owner.__dict__.pop(leaf, None)
    owner._parameters[leaf] = _parameter(value, value)
    return "SpectralNorm"


HOOKS: tuple[tuple[type, str, Callable[[nn.Module, str, Tensor, Changes, int], str]], ...] = (
    (WeightNorm, "name", _weight_normed),
    (BasePruningMethod, "_tensor_name", _pruned),
    (SpectralNorm, "name", _spectral_normed),
)
"""Hooks of `torch.nn.utils` that compute a weight: their class, where they keep its name, and how it is given back."""
