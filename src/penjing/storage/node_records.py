"""How nodes stand in a `.penjing` file: a record each, with a kind, an op by name, arguments and where it came from.

Names, which `torch.fx` writes into the code that it generates, are plain words. Each call is checked by `admission`, when it
is written as when it is read.
"""

import keyword
import re
from typing import Any

from torch import Tensor, fx
from torch._ops import OpOverload

from penjing.checks import shown
from penjing.errors import PenjingError
from penjing.graph import modes, straight_through
from penjing.storage.admission import ADMITTED, OPERATORS, REFUSED, Calls, check_admitted, name_of, operator_name
from penjing.storage.as_json import decode, encode

_KINDS = ("placeholder", "get_attr", "call_function", "output")
_LONGEST_NAME = 1024
# What generated code refers to beside its variables.
_OF_GENERATED_CODE = re.compile(r"_?(torch|operator|math|device|inf|nan|NoneType|fx_pytree|pytree|self)(_.*)?")


def node_to_json(node: fx.Node, calls: Calls) -> dict[str, Any]:
    """Returns the record of a node.

    Raises:
        PenjingError: the format has no place for its op or its arguments.
    """
    target = straight_through.swap(node.target, training=False)
    args, kwargs = list(node.args), dict(node.kwargs)
    if node.meta.get(modes.SWITCHES):
        args[modes.TRAINING_ARGUMENT[target]] = False  # a file holds the evaluation mode
    if modes.TRAINING_DROPOUT in node.meta:
        modes.set_attention_dropout(node, args, kwargs, 0.0)
    record = {
        "name": node.name,
        "op": node.op,
        "target": _target_to_json(node.op, target),
        "args": encode(args),
        "kwargs": {key: encode(value) for key, value in kwargs.items()},
        "module": node.meta.get("module", ""),
        "source": node.meta.get("source", ""),
    }
    try:
        calls.check(node, target, args, kwargs)
    except PenjingError as error:
        raise PenjingError(
            f"The graph can't be stored in a .penjing file: {error}. Change the call at "
            f'{record["source"] or "that node"}, write the graph with lower(graph, target="torch"), or save its '
            "state_dict()."
        ) from error
    if node.meta.get(modes.SWITCHES):
        record["switches"] = True
    if modes.TRAINING_DROPOUT in node.meta:
        record["dropout"] = node.meta[modes.TRAINING_DROPOUT]
    return record


def nodes_from_json(records: list[dict[str, Any]], tensors: dict[str, Tensor], most: int) -> fx.Graph:
    """Returns the nodes of the records, which read these tensors.

    Args:
        records: of the nodes, in order.
        tensors: by name.
        most: how many nodes there may be.

    Raises:
        PenjingError: there are more, or a record is no node that a file may hold.
    """
    if len(records) > most:
        raise PenjingError(
            f"it has {len(records):,} nodes, and {most:,} are allowed; if you trust it, pass largest=…, the memory that it may "
            "take"
        )
    graph, calls = fx.Graph(), Calls()
    known: dict[str, fx.Node] = {}
    for record in records:
        op, name = record["op"], record["name"]
        if op not in _KINDS:
            raise PenjingError(f"'{op}' is no kind of node")
        if not _names_variable(name) or name in known:
            raise PenjingError(f"{shown(name)} is no name of a node: it isn't a plain word, or another node has it")
        target = _target_from_json(op, record["target"])
        if op == "get_attr" and target not in tensors:
            raise PenjingError(f"a node reads the tensor '{target}', which is not in the file")
        if op == "placeholder" and not _names_input(target):
            raise PenjingError(f"{shown(target)} is no name of an input")
        if not all(key.isidentifier() and not keyword.iskeyword(key) for key in record["kwargs"]):
            raise PenjingError(f"the node '{name}' has a keyword argument that is none")
        if op in ("placeholder", "get_attr") and (record["args"] or record["kwargs"]):
            raise PenjingError(f"the node '{name}' takes arguments, and it is no call")
        args = tuple(decode(value, known) for value in record["args"])
        kwargs = {str(key): decode(value, known) for key, value in record["kwargs"].items()}
        if op == "output":  # a tuple where it was captured: JSON has lists alone
            made = graph.output(tuple(args[0]) if isinstance(args[0], list) else args[0])
        else:
            made = graph.create_node(op, target, args, kwargs, name=name)
        calls.check(made, made.target, made.args, made.kwargs)
        made.meta["module"], made.meta["source"] = str(record["module"]), str(record["source"])
        if record.get("switches"):
            made.meta[modes.SWITCHES] = bool(modes.TRAINING_ARGUMENT[target] < len(args))
        if "dropout" in record:
            if target not in modes.DROPOUT_PROBABILITY:
                raise PenjingError(f"the op '{record['target']}' has no dropout")
            made.meta[modes.TRAINING_DROPOUT] = float(record["dropout"])
        known[name] = made
    return graph


def _names_variable(name: Any) -> bool:
    """Tells whether a name can be a variable of generated code that hides neither its `self` nor a special name.

    Python takes letters of other alphabets for equal that aren't the same, so that two variables would be one.
    """
    word = isinstance(name, str) and len(name) <= _LONGEST_NAME and name.isascii() and name.isidentifier()
    return word and not keyword.iskeyword(name) and name != "self" and not name.startswith("__")


def _names_input(name: Any) -> bool:
    """Tells whether a name can be an argument of generated code that hides nothing that this code calls."""
    return _names_variable(name) and not _OF_GENERATED_CODE.fullmatch(name)


def _target_to_json(op: str, target: Any) -> str:
    if op != "call_function":
        return str(target)
    name = operator_name(target)
    if name is not None:
        return name
    if not isinstance(target, OpOverload):
        raise PenjingError(f"The op {target} can't be stored in a .penjing file.")
    try:
        return check_admitted(target)
    except PenjingError as error:
        why = f" ({REFUSED[name_of(target)]})" if name_of(target) in REFUSED else ""
        raise PenjingError(
            f"The op {name_of(target)} can't be stored in a .penjing file{why}, which holds only those of PyTorch's ops that "
            'do no harm whatever a stranger writes into it. Write the graph with lower(graph, target="torch"), or save its '
            "state_dict()."
        ) from error


def _target_from_json(op: str, target: Any) -> Any:
    if not isinstance(target, str) or len(target) > _LONGEST_NAME:
        raise PenjingError(f"{shown(target)} is nothing that a node can call or read")
    if op != "call_function":
        return target
    found = OPERATORS.get(target) or ADMITTED.get(target)
    if found is None:
        why = f": {REFUSED[target]}" if target in REFUSED else ""
        raise PenjingError(f"the op {shown(target)} is not allowed{why}")
    return found
