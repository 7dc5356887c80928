"""Answers of a teacher by the sample that they are of, in memory and in one file.

The file is in safetensors' format. For each shape of answers, numbered from 0:

    NUMBER/keys      (rows, KEY) uint8, the hash of each sample
    NUMBER/INDEX     (rows, ...) the values of one output, in the order of the outputs

and a header with the version of this format, the teacher's identity, and a checksum of all tensors.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from penjing.damage import DAMAGE, described
from penjing.errors import PenjingError
from penjing.files import atomic_path

FORMAT = "penjing teacher answers 1"
KEY = 16  # bytes of a sample's hash: two of 2**40 samples have one hash with a probability below 1e-14
ENTRY = 256  # bytes that Python needs in memory for one sample beside its answers: the key and its row in a dictionary
FIRST_ROWS = 1024  # samples for which a table has room at first; it doubles whenever it is full

Kind = tuple[tuple[torch.dtype, tuple[int, ...]], ...]
"""Of each output, the type and the shape of one sample's values."""


class Answers:
    """Rows of tensors by key, of any number of shapes, up to a number of bytes.

    Attributes:
        bytes: the size of all that is kept.
        changed: whether something was added since the file was read or written.
    """

    def __init__(self, most_bytes: int) -> None:
        """Begins without any; more than `most_bytes` are never kept."""
        self.bytes, self.changed, self._most = 0, False, most_bytes
        self._tables: dict[Kind, _Table] = {}
        self._places: dict[bytes, tuple[_Table, int]] = {}

    def __len__(self) -> int:
        return len(self._places)

    def find(self, keys: Sequence[bytes]) -> list[Tensor] | None:
        """Returns the outputs of these samples, `(len(keys), ...)` each; None where one isn't there."""
        places = [self._places.get(key) for key in keys]
        tables = {id(place[0]) if place is not None else None for place in places}
        if len(tables) != 1 or None in tables or places[0] is None:
            return None
        rows = torch.tensor([place[1] for place in places if place is not None])
        return [column[rows] for column in places[0][0].columns]

    def add(self, keys: Sequence[bytes], outputs: Sequence[Tensor]) -> bool:
        """Keeps the outputs of samples that aren't there yet; tells whether there was room for all of them.

        Args:
            keys: one for each sample.
            outputs: on the CPU, with a row for each sample.
        """
        kind: Kind = tuple((one.dtype, tuple(one.shape[1:])) for one in outputs)
        each = ENTRY + sum(one[0].nbytes for one in outputs)
        new = list({key: row for row, key in enumerate(keys) if key not in self._places}.items())
        fitting = new[: max(0, (self._most - self.bytes) // each)]
        if fitting:
            table = self._tables.setdefault(kind, _Table(outputs))
            first = table.append([key for key, _ in fitting], [one[[row for _, row in fitting]] for one in outputs])
            self._places.update({key: (table, first + index) for index, (key, _) in enumerate(fitting)})
            self.bytes += each * len(fitting)
            self.changed = True
        return len(fitting) == len(new)

    def write(self, path: Path, identity: str) -> None:
        """Writes all of it, whole or not at all.

        Raises:
            PenjingError: the file can't be written.
        """
        tensors = {}
        for number, table in enumerate(self._tables.values()):
            for name, tensor in table.tensors().items():
                tensors[f"{number}/{name}"] = tensor
        header = {"format": FORMAT, "teacher": identity, "checksum": _checksum(tensors)}
        try:
            with atomic_path(path) as temporary:
                save_file(tensors, temporary, header)
        except DAMAGE as error:
            raise PenjingError(f"The teacher's answers can't be written to {path}: {described(error)}") from error
        self.changed = False


class _Table:
    """Rows of one shape; it grows."""

    def __init__(self, like: Sequence[Tensor]) -> None:
        """Makes room for rows as those of `like`."""
        self.keys: list[bytes] = []
        self.columns = [torch.empty((FIRST_ROWS, *one.shape[1:]), dtype=one.dtype) for one in like]

    def append(self, keys: Sequence[bytes], outputs: Sequence[Tensor]) -> int:
        """Adds rows; returns the number of the first."""
        first = len(self.keys)
        self.keys += keys
        for index, (column, values) in enumerate(zip(self.columns, outputs, strict=True)):
            if len(self.keys) > len(column):
                grown = column.new_empty((max(2 * len(column), len(self.keys)), *column.shape[1:]))
                grown[:first] = column[:first]
                self.columns[index] = column = grown
            column[first : len(self.keys)] = values
        return first

    def tensors(self) -> dict[str, Tensor]:
        """Returns keys and columns by the names that they have in a file."""
        keys = torch.frombuffer(bytearray(b"".join(self.keys)), dtype=torch.uint8).reshape(-1, KEY)
        columns = {str(index): column[: len(self.keys)].clone() for index, column in enumerate(self.columns)}
        return {"keys": keys, **columns}


def read(path: Path, identity: str, most_bytes: int) -> Answers:
    """Returns the answers in a file; none where there is no file.

    Raises:
        Damaged: the file can't be read, or isn't whole.
        PenjingError: the file is of another kind, or of another teacher.
    """
    answers = Answers(most_bytes)
    if not path.exists():
        return answers
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            names = list(file.keys())
            tensors = {name: file.get_tensor(name) for name in names} if header.get("format") == FORMAT else {}
    except DAMAGE as error:
        raise Damaged(f"{path} can't be read as a teacher's answers ({described(error)}).") from error
    if header.get("format") != FORMAT:
        raise PenjingError(f"{path} holds something else than a teacher's answers: choose another path=.")
    if header.get("teacher") != identity:
        raise PenjingError(
            f"{path} holds the answers of another teacher, or of one with other weights: delete it, or choose another path=."
        )
    if header.get("checksum") != _checksum(tensors):
        raise Damaged(f"{path} isn't as it was written: its checksum is another.")
    try:
        for keys in (name for name in names if name.endswith("/keys")):
            table = keys.removesuffix("keys")
            count = sum(name.startswith(table) for name in names) - 1
            answers.add(
                [bytes(row) for row in tensors[keys].numpy()], [tensors[f"{table}{one}"] for one in range(count)]
            )
    except DAMAGE as error:
        raise Damaged(f"{path} holds no answers as they are written here ({described(error)}).") from error
    answers.changed = False
    return answers


class Damaged(PenjingError):
    """A file of answers that isn't as it was written; the answers can be computed anew."""


def _checksum(tensors: dict[str, Tensor]) -> str:
    total = hashlib.blake2b(digest_size=KEY)
    for name, tensor in sorted(tensors.items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
    return total.hexdigest()
