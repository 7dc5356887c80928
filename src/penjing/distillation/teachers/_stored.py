"""The teacher "stored": it answers each sample once, and its answers are read afterwards."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from penjing.checks import PATH, check, optional, whole
from penjing.distillation.teachers._answer_file import KEY, Answers, Damaged, read
from penjing.distillation.teachers._one import One
from penjing.distillation.teachers._registry import Lesson, Say, Teacher, teachers
from penjing.errors import PenjingError
from penjing.files import cache_folder, sweep

LARGEST = 2**30  # bytes: logits of ten classes for some four million samples, a quarter of a small machine's memory
MOST = 2**50  # bytes: no machine of today has as many
SUFFIX = ".safetensors"


@teachers.register(
    source="practice; stored answers of augmented samples as in Shen and Xing, A Fast Knowledge Distillation Framework for "
    "Visual Recognition, ECCV 2022, arXiv:2112.01528",
    name="stored",
)
class Stored(Teacher):
    """Answers from a file what another teacher answered before; that teacher runs for new samples alone.

    A sample is known by a hash of its inputs' bytes. So what augmentation made before is found again where its seed repeats
    it, in the next run with the same seed for example, and all else is computed and added. A batch is computed as a whole
    where one of its samples is new, in float32 whatever the precision of the student's steps. Outputs are all that is kept, one
    row for each sample: signals that look inside the teacher can't be used, and a teacher whose answer for a sample depends on
    the others of the batch, or on labels, is none for this.

    The file belongs to one teacher, with its weights. It is written before each checkpoint, whole or not at all, by the first
    process where there are several. A damaged one is made anew, which the log tells.
    """

    why_closed = "stored answers are outputs alone"

    def __init__(self, teacher: Teacher | nn.Module, path: Path | str | None = None, largest: int = LARGEST) -> None:
        """Takes the teacher and the file.

        Args:
            teacher: a network, or a teacher of several.
            path: a file with the suffix ".safetensors"; by default one in `$PENJING_CACHE`, or else `~/.cache/penjing`, that
                is named after the teacher's weights.
            largest: the most bytes of answers to keep, in memory and on disk; what is more is computed each time. Memory holds
                room for up to twice as many.

        Raises:
            PenjingError: the teacher's answers can't be stored, or the path has another suffix.
        """
        given = teacher if isinstance(teacher, Teacher) else One(teacher)
        super().__init__()
        check({"path": path, "largest": largest}, {"path": optional(PATH), "largest": whole(1, MOST)})
        if not given.constant or not given.networks:
            raise PenjingError(
                f"The answers of the teacher {type(given).__name__} aren't the same each time that a sample comes, so they can't "
                "be stored: give a network, or a mean of several."
            )
        if path is not None and Path(path).suffix != SUFFIX:
            raise PenjingError(f"path={str(path)!r}: a file of a teacher's answers is called NAME{SUFFIX}.")
        self._teacher, self._largest = given, largest
        self.path = _home(given) if path is None else Path(path)

    @property
    def network(self) -> None:
        """None: signals can't look into a file."""
        return None

    def identity(self) -> str:
        """Returns a text that differs for another teacher; the place of the file doesn't matter."""
        return f"Stored {self._teacher.identity()}"

    def prepare(self, student: nn.Module, device: torch.device, say: Say) -> None:
        """Opens the file.

        Raises:
            PenjingError: the file is of another kind, or of another teacher.
        """
        # What several networks answer together hangs on the kind of their outputs too.
        self._bound_to = f"{self._teacher.identity()} {self.kind if self._teacher.network is None else ''}".strip()
        sweep(self.path.parent, self.path.stem)
        try:
            self._kept = read(self.path, self._bound_to, self._largest)
        except Damaged as damage:
            say(f"{damage} The teacher answers anew.")
            self._kept = Answers(self._largest)
        self._teacher = self._teacher.begin(student, device, self.kind, say)
        self.networks = self._teacher.networks
        self._say, self._told_full = say, False
        self._nesting: pytree.TreeSpec | None = None  # of the outputs, known once the teacher has answered

    def answers(self, lesson: Lesson) -> Any:
        """Returns the outputs of the batch, stored or computed.

        Raises:
            PenjingError: an output isn't a tensor with a row for each sample, or an input can't be hashed.
        """
        keys = sample_keys(self.seen(lesson.inputs))
        found = None if self._nesting is None else self._kept.find(keys)
        if found is None:
            found = self._computed(lesson, keys)
        assert self._nesting is not None
        device = next((x.device for x in pytree.tree_leaves(list(lesson.inputs)) if isinstance(x, Tensor)), None)
        return pytree.tree_unflatten([one.to(device) for one in found], self._nesting)

    def _computed(self, lesson: Lesson, keys: Sequence[bytes]) -> list[Tensor]:
        """Returns the outputs of the batch, of which samples that are stored keep what is stored; adds the others."""
        devices = {x.device.type for x in pytree.tree_leaves(list(lesson.inputs)) if isinstance(x, Tensor)}
        with torch.autocast(next(iter(devices), "cpu"), enabled=False):
            made, self._nesting = pytree.tree_flatten(self._teacher.answers(lesson))
        outputs = [leaf.detach().cpu() if isinstance(leaf, Tensor) else leaf for leaf in made]
        for leaf in outputs:
            if not isinstance(leaf, Tensor) or not leaf.ndim or len(leaf) != len(keys):
                given = f"shape {tuple(leaf.shape)}" if isinstance(leaf, Tensor) else f"type {type(leaf).__name__}"
                raise PenjingError(
                    f"Stored answers are tensors with a row for each of the {len(keys)} samples of a batch, and one of the "
                    f"teacher's is of {given}: let the network return its tensors alone, or use it without storing."
                )
        if not self._kept.add(keys, outputs) and not self._told_full:
            self._told_full = True
            self._say(f"{self.path} is full ({self._kept.bytes:,} bytes): further answers are computed each time.")
        return self._kept.find(keys) or outputs

    def seen(self, inputs: Sequence[Any]) -> Sequence[Any]:
        """Returns the inputs that the teacher behind sees, which are what a sample is known by."""
        return self._teacher.seen(inputs)

    def shown(self, inputs: Sequence[Any]) -> Sequence[Any]:
        """Returns the inputs that the teacher behind shows to the student."""
        return self._teacher.shown(inputs)

    def save(self) -> None:
        """Writes the file, if there is anything new.

        Raises:
            PenjingError: it can't be written.
        """
        if self._kept.changed:
            self._kept.write(self.path, self._bound_to)


def _home(teacher: Teacher) -> Path:
    name = hashlib.blake2b(teacher.identity().encode(), digest_size=KEY).hexdigest()
    return cache_folder() / f"answers-{name}{SUFFIX}"


def sample_keys(inputs: Sequence[Any]) -> list[bytes]:
    """Returns a hash of each sample of a batch: of the bytes, types and shapes of its rows in all inputs.

    An input without rows, such as a number that goes for the whole batch, is part of every hash.

    Raises:
        PenjingError: no input has rows, or one is neither a tensor nor a plain value.
    """
    leaves = pytree.tree_leaves(list(inputs))
    samples = next((len(x) for x in leaves if isinstance(x, Tensor) and x.ndim), None)
    if samples is None:
        raise PenjingError(
            "The answers for a batch without samples can't be stored: its inputs hold no tensor with an axis."
        )
    common = hashlib.blake2b(digest_size=KEY)
    rows = []
    for leaf in leaves:
        if not isinstance(leaf, Tensor):
            if not isinstance(leaf, bool | int | float | str | bytes | None):
                raise PenjingError(
                    f"An input of type {type(leaf).__name__} can't be hashed, so answers for it can't be stored."
                )
            common.update(repr(leaf).encode())
            continue
        plain = leaf.detach().cpu().contiguous()
        common.update(f"{plain.dtype} {tuple(plain.shape[1:])}".encode())
        if not plain.numel():
            continue
        content = plain.reshape(-1).view(torch.uint8).numpy()
        if plain.ndim and len(plain) == samples:
            rows.append(content.reshape(samples, -1))
        else:
            common.update(content.tobytes())
    keys = []
    for sample in range(samples):
        hashed = common.copy()
        for row in rows:
            hashed.update(row[sample].data)
        keys.append(hashed.digest())
    return keys
