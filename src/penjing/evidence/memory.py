"""Remembers results of passes over a data set: no pass is made twice, and the results of a killed run are kept.

Only small statistics are kept: ranges, moments, Gram matrices, scores. Activations aren't kept.
"""

import hashlib
import json
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from penjing.damage import DAMAGE, described
from penjing.data import Data
from penjing.files import atomic_path
from penjing.graph import Graph
from penjing.version import __version__

log = logging.getLogger(__name__)

Found = Mapping[str, Tensor]

MOST_BYTES = 2**28  # bytes of all answers together: the Gram matrices of a mobile network take some 2**26


class Memory:
    """Answers to questions about graphs and a data set, each found once.

    Attributes:
        folder: where answers are kept across processes; None keeps them in memory alone.
    """

    def __init__(self, folder: Path | None = None, *, data: str = "", most_bytes: int = MOST_BYTES) -> None:
        """Opens the memory with the answers in the folder.

        Args:
            folder: see the attribute; the folder is made when the first answer is written.
            data: the identity of the data set, see `Data.identity`; it is part of every question.
            most_bytes: the most bytes to keep; answers to the questions asked longest ago are forgotten first.
        """
        self.folder, self._data, self._most = folder, data, most_bytes
        self._answers: OrderedDict[str, dict[str, Found]] = OrderedDict()

    def gather(
        self,
        kind: str,
        about: Mapping[str, Any],
        names: Iterable[str],
        find: Callable[[list[str]], Mapping[str, Found]],
        *,
        across_processes: bool = True,
    ) -> dict[str, Found]:
        """Returns an answer with one part for each name; `find` computes all unknown parts together.

        Args:
            kind: the kind of question in one word, such as "gram".
            about: all that the parts depend on besides the data, as plain JSON.
            names: the names of the parts.
            find: a function from the names of unknown parts to these parts: tensors by name, which nobody may change
                afterwards. Names of tensors hold no "@". A part without tensors isn't remembered.
            across_processes: whether the answer may be kept in the folder. It may not where it depends on a function of
                the user's, which may differ next time.
        """
        question = json.dumps([__version__, torch.__version__, self._data, kind, about], sort_keys=True)
        path = self._path(kind, question) if across_processes else None
        known = self._answers.get(question)
        if known is None:
            known = {} if path is None else _read(path, question)
        names = list(names)
        missing = [name for name in names if name not in known]
        found = dict(find(missing)) if missing else {}
        whole = known | {name: part for name, part in found.items() if part}
        if whole and _bytes(whole) <= self._most:
            if found and path is not None:
                _write(path, question, whole)
            self._keep(question, whole)
        return {name: found[name] if name in found else known[name] for name in names}

    def recall(
        self, kind: str, about: Mapping[str, Any], find: Callable[[], Found], *, across_processes: bool = True
    ) -> Found:
        """Returns an answer of one part, remembered or computed by `find`; see `gather`."""
        return self.gather(kind, about, [""], lambda _: {"": find()}, across_processes=across_processes)[""]

    def _keep(self, question: str, answer: dict[str, Found]) -> None:
        self._answers[question] = answer
        self._answers.move_to_end(question)
        while sum(map(_bytes, self._answers.values())) > self._most:
            self._answers.popitem(last=False)

    def _path(self, kind: str, question: str) -> Path | None:
        name = f"{kind}-{hashlib.sha256(question.encode()).hexdigest()[:16]}.safetensors"
        return None if self.folder is None else self.folder / name


def _bytes(answer: Mapping[str, Found]) -> int:
    return sum(tensor.nbytes for part in answer.values() for tensor in part.values())


def _write(path: Path, question: str, answer: Mapping[str, Found]) -> None:
    """Writes an answer and its question as one file, whole or not at all."""
    flat = {
        f"{tensor}@{name}": value.detach().cpu().contiguous().clone()
        for name, part in answer.items()
        for tensor, value in part.items()
    }
    with atomic_path(path) as temporary:
        save_file(flat, temporary, {"question": question})


def _read(path: Path, question: str) -> dict[str, Found]:
    """Returns the parts of the answer in a file; none where the file is missing, damaged, or answers another question."""
    if not path.is_file():
        return {}
    answer: dict[str, dict[str, Tensor]] = {}
    try:
        with safe_open(path, "pt") as file:
            if (file.metadata() or {}).get("question") == question:
                for key in file.keys():  # noqa: SIM118  (the file is no mapping)
                    tensor, _, name = key.partition("@")
                    answer.setdefault(name, {})[tensor] = file.get_tensor(key)
                return dict(answer)
            problem = "it answers another question"
    except DAMAGE as error:
        problem = described(error)
    log.warning("%s can't be used, so what it held is found again: %s", path, problem)
    return {}


# Data that come with a memory


@dataclass(frozen=True)
class RememberedData(Data):
    """Data with a memory of results of passes over them; they can be used wherever `Data` can.

    Attributes:
        memory: the memory of results from `seen`.
        seen: the training and the calibration loader to which the memory belongs; data with other loaders remember nothing.
    """

    memory: Memory = field(default_factory=Memory, compare=False)
    seen: tuple[Any, Any] = field(default=(None, None), compare=False)


class RememberedBatches:
    """Calibration batches without a `Data`, with a memory of results of passes over them."""

    def __init__(self, batches: Iterable[Any]) -> None:
        self.batches, self.memory = batches, Memory()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)


def remembering(data: Any, folder: Path | None = None) -> Any:
    """Returns the same data with a memory, so that all verbs that receive them share each pass.

    The loaders must give the same samples every time. Data that already have a memory, or that can be read only once,
    are returned unchanged.

    Args:
        data: a `Data`, or an iterable of calibration batches.
        folder: the folder that keeps answers across processes; only for a `Data`.
    """
    if isinstance(data, RememberedData | RememberedBatches):
        return data
    if isinstance(data, Data):
        own = {one.name: getattr(data, one.name) for one in fields(Data)}
        identity = data.identity() if folder is not None else ""
        return RememberedData(**own, memory=Memory(folder, data=identity), seen=(data.train, data.calibration))
    repeatable = hasattr(data, "__iter__") and not hasattr(data, "__next__") and not isinstance(data, Tensor)
    return RememberedBatches(data) if repeatable else data


def memory_of(data: Any) -> Memory | None:
    """Returns the memory of data, if it belongs to the loaders that they hold; else None."""
    if isinstance(data, RememberedBatches):
        return data.memory
    if isinstance(data, RememberedData):
        same = data.train is data.seen[0] and data.calibration is data.seen[1]
        return data.memory if same else None
    return None


def fingerprint_of(graph: Graph) -> str:
    """Returns a hash of a graph's inputs, nodes and tensors' values, which fix its function."""
    digest = hashlib.sha256(repr((graph.inputs, graph.batch)).encode())
    for node in graph.program.graph.nodes:
        digest.update(f"{node.op} {node.name} {node.target} {node.args} {node.kwargs}\n".encode())
    _add(digest, graph.tensors())
    return digest.hexdigest()


def fingerprint_of_tensors(tensors: Iterable[Mapping[str, Tensor]]) -> str:
    """Returns a hash of tensors and their names."""
    digest = hashlib.sha256()
    for one in tensors:
        _add(digest, one)
    return digest.hexdigest()


def _add(digest: "hashlib._Hash", tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in sorted(tensors.items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)} {tensor.device}\n".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
