"""Networks that give their inner values along with their outputs."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils.hooks import RemovableHandle

from penjing.errors import PenjingError
from penjing.graph import Graph
from penjing.raised import raised
from penjing.tasks import run_on


class Tapped(nn.Module):
    """A network that returns `(outputs, taps)`: taps are values of nodes where it is a graph, else outputs of modules.

    It shares the parameters of the network that it is made of.
    """

    takes_mapping = True

    def __init__(self, network: nn.Module, names: Sequence[str] = ()) -> None:
        """Takes the network, and the nodes (of a graph) or modules (of any other) whose values are wanted."""
        super().__init__()
        self._names, self._kept = list(names), dict[str, Any]()
        self._given = (network,)  # in a tuple, so that it is no second submodule
        is_graph = isinstance(network, Graph)
        self._inside = bool(names) and is_graph
        self._code = ""
        self.network = network
        if isinstance(network, Graph) and names:
            self.network, self._code = network.with_outputs(dict.fromkeys(names)), network.program.code
        self._handles = list[RemovableHandle]()
        for name in () if is_graph else dict.fromkeys(names):
            self._handles.append(network.get_submodule(name).register_forward_hook(self._keeper(name)))

    def _keeper(self, name: str) -> Any:
        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            # A copy, since an op behind the module may write into its output, as ReLU(inplace=True) does.
            self._kept[name] = output.clone() if isinstance(output, Tensor) else output

        return keep

    def close(self) -> None:
        """Takes the hooks off the network, and lets go of the values."""
        for handle in self._handles:
            handle.remove()
        self._kept.clear()

    def check_unchanged(self) -> None:
        """Makes sure that the network's ops are still those that were tapped.

        Raises:
            PenjingError: they aren't.
        """
        network = self._given[0]
        if isinstance(network, Graph) and self._inside and network.program.code != self._code:
            raise PenjingError(
                "The graph's ops changed while it was trained, and the signal looks at values inside it: leave stages=… out, "
                "or use a signal that compares outputs, such as 'soft_labels'."
            )

    def forward(self, *inputs: Any) -> tuple[Any, list[Tensor]]:
        """Returns the network's outputs and the values in the order of their names.

        Raises:
            PenjingError: a module wasn't called, or gave no tensor.
        """
        self._kept.clear()  # a module that isn't called this time must not give the value of an earlier batch
        made = run_on(self.network, inputs)
        if not self._names:
            return made, []
        outputs, kept = made if self._inside else (made, self._kept)
        odd = [name for name in self._names if not isinstance(kept.get(name), Tensor)]
        if odd:
            raise PenjingError(
                f"'{odd[0]}' gives no tensor that could be compared ("
                f"{type(kept[odd[0]]).__name__ if odd[0] in kept else 'it is not called'}): name another module in taps=…."
            )
        return outputs, [kept[name] for name in self._names]


def called(name: str, model: nn.Module, inputs: Sequence[Any]) -> tuple[Any, list[Tensor]]:
    """Returns what a network, tapped, gives for a batch of the training data.

    Args:
        name: what the network is called in errors.
        model: a `Tapped`, maybe wrapped by Accelerate.
        inputs: of the batch.

    Raises:
        PenjingError: the network raised an exception; its text and the inputs' shapes are told.
    """
    try:
        made: tuple[Any, list[Tensor]] = model(*inputs)
        return made
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        given = ", ".join(str(tuple(x.shape)) for x in pytree.tree_leaves(list(inputs)) if isinstance(x, Tensor))
        raise raised(
            f"{name} can't take a batch of the training data (inputs of shape {given}): it raised", error
        ) from error
