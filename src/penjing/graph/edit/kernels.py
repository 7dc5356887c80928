"""Smaller kernels: positions that are masked in every kernel of a layer are taken out of the graph.

What stays of a kernel is either a smaller kernel, padded unevenly, or a gather: the shifted images that the kept positions
look at, side by side along the channels, and one matrix product with them. Both compute what the masked layer computed.
Which positions should go is for pruning to say; it says so in `graph.masks`.
"""

import copy
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn

from penjing.errors import unknown_name
from penjing.graph.edit.rewriter import Writer
from penjing.graph.graph import Graph
from penjing.graph.ops import CONVOLUTIONS, TRANSPOSED_CONVOLUTIONS, node_arguments

aten = torch.ops.aten

FORMS = ("auto", "rectangle", "gather")
_BY_AXES = {1: aten.conv1d.default, 2: aten.conv2d.default, 3: aten.conv3d.default}
_END = torch.iinfo(torch.int64).max


@dataclass(frozen=True)
class Kernel:
    """A convolution's weight in which some positions of the kernel are masked throughout.

    Attributes:
        weight: the parameter's name.
        window: the kernel's size.
        positions: those that stay, row by row.
        convolutions: names of the nodes that use the weight.
        obstacle: why it has to stay as large as it is, or "".
        depthwise: whether each channel has a kernel of its own.
    """

    weight: str
    window: tuple[int, ...]
    positions: tuple[tuple[int, ...], ...]
    convolutions: tuple[str, ...]
    obstacle: str = ""
    depthwise: bool = False

    @property
    def grid(self) -> tuple[range, ...]:
        """The smallest grid that holds all positions: per axis, steps of one length."""
        grid = []
        for used in (sorted(set(along)) for along in zip(*self.positions, strict=True)):
            step = math.gcd(*(index - used[0] for index in used)) or 1
            grid.append(range(used[0], used[-1] + 1, step))
        return tuple(grid)

    @property
    def filled(self) -> bool:
        """Whether the positions are all of that grid, so that they are a kernel, if maybe a dilated one."""
        return len(self.positions) == math.prod(map(len, self.grid))

    def described(self, form: str = "auto") -> str:
        """Says in a few words what becomes of the kernel."""
        if self.obstacle:
            return f"masked, since {self.obstacle}"
        if _is_rectangle(self, form):
            steps = [places.step for places in self.grid if len(places) > 1]
            dilated = ", dilated" if any(step > 1 for step in steps) else ""
            masked = "" if self.filled else f" of which {len(self.positions)} positions are used"
            return f"a {'×'.join(str(len(places)) for places in self.grid)} kernel{dilated}{masked}"
        return f"a gather of {len(self.positions)} positions"


def kernels(graph: Graph) -> tuple[Kernel, ...]:
    """Returns the weights of convolutions of whose kernels some positions, but not all, are masked throughout."""
    readers: dict[int, list[tuple[fx.Node, fx.Node]]] = {}
    for node in graph.program.graph.nodes:
        if node.op == "get_attr":
            uses = readers.setdefault(id(graph.tensor(str(node.target))), [])
            uses += [(user, node) for user in node.users]
    found = []
    for name, mask in graph.masks.items():
        uses = readers.get(id(graph.tensor(name)), [])
        if mask.dim() < 3 or not any(user.target in (*CONVOLUTIONS, *TRANSPOSED_CONVOLUTIONS) for user, _ in uses):
            continue
        stays = mask.flatten(0, 1).any(0)
        if bool(stays.any()) and not bool(stays.all()):
            positions = tuple(tuple(place) for place in stays.nonzero().tolist())
            nodes = tuple(user.name for user, _ in uses)
            depthwise = mask.shape[1] == 1 and mask.shape[0] > 1 and any(_groups(user) > 1 for user, _ in uses)
            found.append(Kernel(name, tuple(stays.shape), positions, nodes, _obstacle(uses), depthwise))
    return tuple(found)


def shrink_kernels(graph: Graph, form: str = "auto", found: Sequence[Kernel] | None = None) -> Graph:
    """Returns a graph in which masked positions of kernels are gone; `graph` stays as it was. Outputs stay the same.

    What else a mask holds at zero stays masked, in the smaller weight.

    Args:
        graph: a graph with masks.
        form: "rectangle" cuts a kernel to the smallest (maybe dilated) one that holds all kept positions, and masks what
            lies between them; "gather" takes just the kept positions, by shifted slices and one matrix product; "auto"
            cuts where nothing lies between them, and in depthwise convolutions, which no runtime has a product for (a
            gather was measured 5 to 17 times slower than the masked kernel), and gathers elsewhere.
        found: which kernels, out of `kernels(graph)`; all by default. Those with an obstacle stay masked.

    Raises:
        PenjingError: there is no such form.
    """
    if form not in FORMS:
        raise unknown_name("form", form, FORMS)
    small = copy.deepcopy(graph)
    nodes = {node.name: node for node in small.program.graph.nodes}
    for kernel in kernels(graph) if found is None else found:
        if kernel.obstacle:
            continue
        convolutions = [nodes[name] for name in kernel.convolutions]
        windows = [_Window.of(node, kernel).on(kernel) for node in convolutions]
        rewrite, keep = (_cut, _within_grid) if _is_rectangle(kernel, form) else (_gather, _side_by_side)
        for node, window in zip(convolutions, windows, strict=True):
            rewrite(node, window, kernel)
        _replace(small, kernel.weight, partial(keep, kernel=kernel, groups=windows[0].groups))
    return small.refresh()


def unfold_kernel(graph: Graph, weight: str) -> None:
    """Lets the convolutions that read a weight unfold their input once, and multiply the columns: a 1×1 convolution.

    The columns are shifted slices side by side, as in `shrink_kernels` with the form "gather".

    Args:
        graph: is changed; call `refresh()` on it afterwards.
        weight: the name of the weight; its convolutions have one group.
    """
    tensor = graph.tensor(weight)
    window = tuple(tensor.shape[2:])
    positions = tuple(itertools.product(*map(range, window)))
    nodes = [
        node
        for node in graph.program.graph.nodes
        if node.target in CONVOLUTIONS and str(node_arguments(node)[1].target) == weight
    ]
    kernel = Kernel(weight, window, positions, tuple(node.name for node in nodes))
    for node in nodes:
        _gather(node, _Window.of(node, kernel), kernel, values=True)
    with torch.no_grad():
        _replace(graph, weight, partial(_side_by_side, kernel=kernel, groups=1))


def _is_rectangle(kernel: Kernel, form: str) -> bool:
    return form == "rectangle" or (form == "auto" and (kernel.filled or kernel.depthwise))


def _groups(node: fx.Node) -> int:
    return int(node_arguments(node)[6]) if node.target in CONVOLUTIONS else 1


def _obstacle(uses: Sequence[tuple[fx.Node, fx.Node]]) -> str:
    for user, weight in uses:
        if user.target in TRANSPOSED_CONVOLUTIONS:
            return "a transposed convolution uses it"
        if user.target not in CONVOLUTIONS or node_arguments(user)[1] is not weight:
            return f"{user.target} reads it too"
    if len({node_arguments(user)[6] for user, _ in uses}) > 1:
        return "convolutions of unlike groups share it"
    return ""


@dataclass(frozen=True)
class _Window:
    """How a kernel slides over the spatial axes, zeros around them on each side; less than none of them cut it."""

    stride: tuple[int, ...]
    before: tuple[int, ...]
    behind: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    @classmethod
    def of(cls, node: fx.Node, kernel: Kernel) -> "_Window":
        """Reads a convolution's arguments."""
        _, _, _, stride, padding, dilation, groups = node_arguments(node)
        axes = len(kernel.window)

        def each(value: Sequence[int]) -> tuple[int, ...]:
            return tuple(value) * axes if len(value) == 1 else tuple(value)

        if isinstance(padding, str):  # "same" puts the odd one behind, "valid" is none
            spans = [d * (k - 1) * (padding == "same") for d, k in zip(each(dilation), kernel.window, strict=True)]
            before, behind = tuple(s // 2 for s in spans), tuple(s - s // 2 for s in spans)
        else:
            before = behind = each(padding)
        return cls(each(stride), before, behind, each(dilation), int(groups))

    def on(self, kernel: Kernel) -> "_Window":
        """Returns the window of the kernel's grid: it starts where that starts, and ends where that ends."""
        axes = list(zip(self.before, self.behind, self.dilation, kernel.window, kernel.grid, strict=True))
        return _Window(
            self.stride,
            tuple(before - d * grid[0] for before, _, d, _, grid in axes),
            tuple(behind - d * (size - 1 - grid[-1]) for _, behind, d, size, grid in axes),
            tuple(d * grid.step for _, _, d, _, grid in axes),
            self.groups,
        )


def _cut(node: fx.Node, window: _Window, kernel: Kernel) -> None:
    """Lets a convolution use the grid as its kernel."""
    x, weight, bias, *_ = node_arguments(node)
    own = [max(0, min(sides)) for sides in zip(window.before, window.behind, strict=True)]
    rest = [(b - o, e - o) for b, e, o in zip(window.before, window.behind, own, strict=True)]
    x = _padded(Writer.before(node), x, rest)
    node.target = _BY_AXES[len(own)]
    node.args = (x, weight, bias, list(window.stride), own, list(window.dilation), window.groups)
    node.kwargs = {}


def _gather(node: fx.Node, window: _Window, kernel: Kernel, *, values: bool = False) -> None:
    """Lets a convolution multiply, at each place, what all kept positions see there."""
    x, weight, bias, *_ = node_arguments(node)
    axes = len(kernel.window)
    write = Writer.before(node, values=values)
    sides = list(zip(window.before, window.behind, strict=True))
    channel = x.meta["val"].dim() - axes - 1
    x = _padded(write, x, [(max(before, 0), max(behind, 0)) for before, behind in sides])
    slices, axis_by_axis = _Slices(write, x, channel + 1), (kernel.grid, sides, window.dilation, window.stride)
    seen = [slices.cut([_seen(*one) for one in zip(places, *axis_by_axis, strict=True)]) for places in kernel.positions]
    if window.groups == 1 or len(seen) == 1:
        x = write(aten.cat.default, seen, channel) if len(seen) > 1 else seen[0]
    else:  # a group's channels must stand together
        x = write(aten.flatten.using_ints, write(aten.stack.default, seen, channel + 1), channel, channel + 1)
    node.target = _BY_AXES[axes]
    node.args = (x, weight, bias, [1] * axes, [0] * axes, [1] * axes, window.groups)
    node.kwargs = {}


def _seen(place: int, grid: range, sides: tuple[int, int], dilation: int, stride: int) -> tuple[int, int, int]:
    """Returns the start, end and step of what one position sees along an axis, counted so that the size doesn't matter."""
    index = grid.index(place)
    start = max(-sides[0], 0) + index * dilation
    rest = max(-sides[1], 0) + (len(grid) - 1 - index) * dilation
    return start, -rest if rest else _END, stride


def _padded(write: Writer, x: fx.Node, sides: Sequence[tuple[int, int]]) -> fx.Node:
    """Adds zeros around the last axes, and then cuts them where sides are negative: there may be no more than zeros."""
    for bound in (max, min):
        widths = [bound(width, 0) for side in reversed(sides) for width in side]
        x = write(aten.pad.default, x, widths, "constant", 0.0) if any(widths) else x
    return x


class _Slices:
    """Slices of one value along its axes from `first` on; what several slices share is cut once."""

    def __init__(self, write: Writer, value: fx.Node, first: int) -> None:
        self._write, self._value, self._first = write, value, first
        self._known: dict[Any, fx.Node] = {}

    def cut(self, cuts: Sequence[tuple[int, int, int]]) -> fx.Node:
        """Returns the value from a start to an end in steps, along each of the axes."""
        x = self._value
        for axis, cut in enumerate(cuts, self._first):
            if cut != (0, _END, 1):
                key = (x, axis, cut)
                if key not in self._known:
                    self._known[key] = self._write(aten.slice.Tensor, x, axis, *cut)
                x = self._known[key]
        return x


def _within_grid(values: Tensor, kernel: Kernel, groups: int) -> Tensor:
    """Returns a weight, or its mask, as `_cut` wants it."""
    for axis, places in enumerate(kernel.grid, 2):
        values = values.index_select(axis, torch.tensor(places, device=values.device))
    return values


def _side_by_side(values: Tensor, kernel: Kernel, groups: int) -> Tensor:
    """Returns a weight, or its mask, as `_gather` wants it."""
    places = torch.tensor(kernel.positions, device=values.device)
    values = values[(slice(None), slice(None), *places.T)]  # (out, in, positions)
    values = values.transpose(1, 2) if groups == 1 else values
    return values.flatten(1).reshape(len(values), -1, *[1] * len(kernel.window))


def _replace(graph: Graph, name: str, change: Callable[[Tensor], Tensor]) -> None:
    """Changes a parameter, under all of its names, and its mask; a mask that no longer hides anything goes."""
    old = graph.tensor(name)
    new = nn.Parameter(change(old.detach()).clone(), old.requires_grad)
    for alias in [alias for alias, tensor in graph.tensors().items() if tensor is old]:
        graph.set_tensor(alias, new)
    if name in graph.masks:
        mask = change(graph.masks.pop(name)).clone()
        if not bool(mask.all()):
            graph.masks[name] = mask
