"""The tensors of a file: their headers, which of three kinds each is, and the bits of each.

plain     an array of bit patterns (_array)
scaled    float32 weights that are a scale times an integer (_scaled)
mask      of a tensor in the same file, whose zeros it mostly repeats
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from penjing.errors import PenjingError
from penjing.storage.compact import _scaled
from penjing.storage.compact._array import PATTERN_DTYPES, Patterns, code_array, decode_array
from penjing.storage.compact._bytes import ByteReader, varint
from penjing.storage.compact._coder import Coded, Source
from penjing.storage.compact._flags import code_flags, decode_flags

WORKSPACE = 16  # bytes that decoding takes for each element of a tensor beside the tensor itself

_DTYPES = (  # their places are their numbers in the file: only append
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.uint16,
    torch.uint32,
    torch.uint64,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.complex64,
)
_GRID_DTYPES = (torch.float32, torch.int8, torch.int16, torch.int32, torch.int64)  # dtypes of scales and zero points
_MOST_AXES = 64
_PLAIN, _SCALED, _MASK = range(3)  # in the order of decoding: each needs only what came before
_NEEDS = {_SCALED: torch.float32, _MASK: torch.bool}
MASK_PREFIX = "mask/"


@dataclass(frozen=True)
class Header:
    """What a file says of a tensor before its values."""

    kind: int
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)


# Headers


def _header(tensor: Tensor, kind: int) -> bytes:
    return bytes([kind, _DTYPES.index(tensor.dtype), tensor.dim()]) + b"".join(varint(size) for size in tensor.shape)


def read_header(side: ByteReader) -> Header:
    """Reads one tensor's header."""
    kind, dtype, axes = side.byte(), side.byte(), side.byte()
    if kind > _MASK or dtype >= len(_DTYPES) or axes > _MOST_AXES or _NEEDS.get(kind) not in (None, _DTYPES[dtype]):
        raise PenjingError("the header of a tensor in it is damaged")
    return Header(kind, _DTYPES[dtype], tuple(side.varint() for _ in range(axes)))


def check_size(headers: list[Header], largest: int) -> None:
    """Raises where the tensors and the workspace for decoding need more than `largest` bytes, before any is made."""
    needed = sum(header.count * header.dtype.itemsize for header in headers)
    needed += WORKSPACE * max((header.count for header in headers), default=0)
    if needed > largest:
        raise PenjingError(
            f"it needs {needed:,} bytes of memory, and {largest:,} are allowed; if you trust it, allow more with "
            f"load(path, largest={needed})"
        )


# Values


def code_tensors(tensors: Mapping[str, Tensor], nodes: list[dict[str, Any]], ties: Mapping[str, str]) -> Coded:
    """Codes all tensors, each in the smallest way.

    Args:
        tensors: by name, in the order of the file; masks as `mask/NAME`.
        nodes: of the description, among which stand quantise/dequantise pairs.
        ties: second names of tensors.
    """
    patterns = {name: _patterns(name, tensor) for name, tensor in tensors.items()}
    places = {name: place for place, name in enumerate(tensors)}
    pairs = {ties.get(name, name): pair.named(ties) for name, pair in _scaled.pairs(nodes).items()}
    grids = {name for pair in pairs.values() for name in (pair.scale, pair.zero) if isinstance(name, str)}
    arrays = {name: tensors[name].numpy() for name in grids if tensors[name].dtype in _GRID_DTYPES}
    coded: list[tuple[int, Coded]] = []
    for name, tensor in tensors.items():
        choices = [(_PLAIN, code_array(patterns[name], tuple(tensor.shape)))]
        if name in pairs and name not in grids and tensor.dtype == torch.float32:
            scaled = _scaled.code_scaled(tensor.numpy(), pairs[name], arrays, places)
            choices += [(_SCALED, scaled)] if scaled is not None else []
        masked = name.removeprefix(MASK_PREFIX)
        masked = ties.get(masked, masked)
        if name.startswith(MASK_PREFIX) and masked in tensors and tensor.dtype == torch.bool:
            mask = _code_mask(patterns[name], places[masked], patterns[masked], tensors[masked].dtype)
            choices += [(_MASK, mask)] if mask is not None else []
        coded.append(min(choices, key=lambda choice: choice[1].size))
    whole = Coded()
    for tensor, (kind, _) in zip(tensors.values(), coded, strict=True):
        whole.side += _header(tensor, kind)
    for wanted in (_PLAIN, _SCALED, _MASK):
        for kind, one in coded:
            if kind == wanted:
                whole.append(one)
    return whole


def decode_tensors(source: Source, headers: list[Header]) -> list[Tensor]:
    """Returns the tensors that `code_tensors` coded."""
    patterns: dict[int, Patterns] = {}
    for wanted in (_PLAIN, _SCALED, _MASK):
        for place, header in enumerate(headers):
            if header.kind != wanted:
                continue
            if wanted == _PLAIN:
                made = decode_array(source, header.dtype.itemsize, header.shape, header.count)
            elif wanted == _SCALED:
                grids = _Grids(patterns, headers)
                made = _scaled.decode_scaled(source, header.shape, header.count, grids)
            else:
                made = _decode_mask(source, header.count, patterns, headers)
            if header.dtype == torch.bool and made.size and made.max() > 1:
                raise PenjingError("a truth value in it is neither true nor false")
            patterns[place] = made
    return [_tensor(patterns[place], header) for place, header in enumerate(headers)]


class _Grids:
    """The tensors decoded so far as arrays of numbers, for those that are scales or zero points."""

    def __init__(self, patterns: Mapping[int, Patterns], headers: list[Header]) -> None:
        self._patterns, self._headers = patterns, headers

    def get(self, place: int) -> NDArray[Any] | None:
        if place not in self._patterns or self._headers[place].dtype not in _GRID_DTYPES:
            return None
        return _tensor(self._patterns[place], self._headers[place]).numpy()


def _patterns(name: str, tensor: Tensor) -> Patterns:
    if tensor.dtype not in _DTYPES:
        raise PenjingError(f"The tensor '{name}' has the dtype {tensor.dtype}, which a compact file has no place for.")
    if not tensor.numel():
        return np.zeros(0, PATTERN_DTYPES[tensor.dtype.itemsize])
    return tensor.reshape(-1).view(torch.uint8).numpy().view(PATTERN_DTYPES[tensor.dtype.itemsize])


def _tensor(patterns: Patterns, header: Header) -> Tensor:
    if not patterns.size:
        return torch.empty(header.shape, dtype=header.dtype)
    return torch.from_numpy(patterns.view(np.uint8)).view(header.dtype).reshape(header.shape)


# Masks


def _zeros(patterns: Patterns, dtype: torch.dtype) -> NDArray[np.bool_]:
    """Tells where numbers are zero; floats have two."""
    sign = patterns.dtype.type(1 << 8 * patterns.itemsize - 1 if dtype.is_floating_point else 0)
    return (patterns & ~sign) == 0


def _code_mask(mask: Patterns, place: int, patterns: Patterns, dtype: torch.dtype) -> Coded | None:
    """Codes a mask by the zeros of its tensor that it keeps, or returns None where it prunes what isn't zero."""
    zeros = _zeros(patterns, dtype)
    if mask.size != patterns.size or not mask[~zeros].all():
        return None
    coded = Coded()
    coded.side += varint(place)
    kept = mask[zeros] > 0
    if kept.size:
        coded.append(code_flags(kept, kept.shape))
    return coded


def _decode_mask(source: Source, count: int, patterns: Mapping[int, Patterns], headers: list[Header]) -> Patterns:
    place = source.side.varint()
    if place not in patterns or patterns[place].size != count:
        raise PenjingError("a mask in it doesn't fit its tensor")
    zeros = _zeros(patterns[place], headers[place].dtype)
    mask = np.ones(count, np.uint8)
    amount = int(zeros.sum())
    if amount:
        mask[zeros] = decode_flags(source, (amount,), amount)
    return mask
