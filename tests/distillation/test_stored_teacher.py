"""Answers that are computed once: what is found again, what isn't, and what becomes of the file."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from penjing.distillation import Confidence, CrossModal, Ema, Mean, One, Stored, Teacher
from penjing.distillation.teachers import Lesson
from penjing.distillation.teachers._answer_file import Answers, _checksum
from penjing.errors import PenjingError

CPU = torch.device("cpu")


class Net(nn.Module):
    """A layer, whose outputs come out at any nesting."""

    def __init__(self, seed: int = 0, nest: Any = lambda outputs: outputs) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layer, self.nest = nn.Linear(6, 4), nest

    def forward(self, x: Tensor) -> Any:
        return self.nest(self.layer(x))


class Asked:
    """A teacher at work, whose networks' runs are counted."""

    def __init__(self, teacher: Teacher, kind: str = "classes") -> None:
        self.runs = 0
        self.said: list[str] = []
        self.teacher = teacher.begin(nn.Linear(1, 1), CPU, kind, self.said.append)

    def __call__(self, *inputs: Any) -> Any:
        def run(network: nn.Module, given: Sequence[Any]) -> Any:
            self.runs += 1
            with torch.no_grad():
                return network(*given)

        return self.teacher.answers(Lesson(inputs, None, run))


def batch(seed: int = 0, *shape: int) -> Tensor:
    return torch.randn(shape or (8, 6), generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "answers.safetensors"


def kept(path: Path, *batches: Tensor, seed: int = 0) -> None:
    """Lets a teacher answer batches and write its file."""
    asked = Asked(Stored(Net(seed), path))
    for x in batches:
        asked(x)
    asked.teacher.save()


def test_each_sample_is_answered_once_in_whatever_batch_it_comes(path: Path) -> None:
    asked, net = Asked(Stored(Net(), path)), Net()
    first, second = batch(0), batch(1)
    answers = torch.cat([asked(first), asked(second)])
    mixed = torch.randperm(16, generator=torch.Generator().manual_seed(2))
    assert torch.equal(asked(torch.cat([first, second])[mixed[:5]]), answers[mixed[:5]])
    assert asked.runs == 2 and torch.allclose(answers, net(torch.cat([first, second])))


def test_a_batch_with_a_new_sample_is_computed_and_known_samples_keep_their_answers(path: Path) -> None:
    asked, net = Asked(Stored(Net(), path)), Net()
    known, new = batch(0), batch(1)[:1]
    before = asked(known).clone()
    after = asked(torch.cat([known[2:5], new]))
    assert asked.runs == 2 and torch.equal(after[:3], before[2:5]) and torch.allclose(after[3:], net(new))
    asked(new)
    assert asked.runs == 2


@pytest.mark.parametrize(
    "changed",
    [
        lambda x: torch.nextafter(x, x + 1),
        lambda x: x.double(),
        lambda x: x.reshape(8, 2, 3),
    ],
    ids=["bits", "type", "shape"],
)
def test_a_sample_with_other_bytes_type_or_shape_is_another(path: Path, changed: Any) -> None:
    asked = Asked(Stored(nn.Flatten(), path))
    asked(batch())
    asked(changed(batch()))
    assert asked.runs == 2


def test_memory_layout_and_gradients_make_no_other_sample(path: Path) -> None:
    asked, images = Asked(Stored(nn.Flatten(), path)), batch(0, 8, 3, 2, 2)
    first = asked(images).clone()
    again = asked(images.clone(memory_format=torch.channels_last).requires_grad_())
    assert asked.runs == 1 and torch.equal(first, again)


def test_the_next_run_reads_what_this_one_wrote(path: Path) -> None:
    kept(path, batch(0), batch(1))
    assert safe_open(path, "pt").metadata()["teacher"]
    asked = Asked(Stored(Net(), path))
    asked(batch(0)[:2])  # tells how the outputs are nested
    assert asked.runs == 1
    assert torch.allclose(asked(batch(1)), Net()(batch(1))) and asked.runs == 1


def test_by_default_the_file_is_named_after_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENJING_CACHE", str(tmp_path / "cache"))
    for seed in (0, 1, 0):
        asked = Asked(Stored(Net(seed)))
        asked(batch())
        asked.teacher.save()
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_outputs_keep_their_nesting_and_any_shapes(path: Path) -> None:
    net = Net(nest=lambda outputs: {"one": outputs, "two": (outputs.argmax(-1), [outputs.unsqueeze(1) > 0])})
    asked = Asked(Stored(net, path))
    short, long = batch(0), batch(1, 5, 3, 6)
    expected = [net(short), net(long)]
    for _ in range(2):
        for x, answer in zip((short, long), expected, strict=True):
            found = asked(x)
            assert torch.allclose(found["one"], answer["one"]) and torch.equal(found["two"][0], answer["two"][0])
            assert torch.equal(found["two"][1][0], answer["two"][1][0])
    assert asked.runs == 2
    asked.teacher.save()
    again = Asked(Stored(net, path))
    again(short), again(long)
    assert again.runs == 1


def test_answers_are_computed_in_float32_whatever_the_precision_of_the_steps(path: Path) -> None:
    asked = Asked(Stored(Net(), path))
    with torch.autocast("cpu", torch.bfloat16):
        answer = asked(batch())
    assert answer.dtype == torch.float32 and torch.equal(answer, Net()(batch()))


def test_several_teachers_are_stored_as_one(path: Path) -> None:
    mean = Mean(Net(1), Net(2))
    asked = Asked(Stored(mean, path))
    expected = Asked(mean)(batch())
    assert torch.equal(asked(batch()), expected) and torch.equal(asked(batch()), expected) and asked.runs == 2
    asked.teacher.save()
    with pytest.raises(PenjingError, match="another teacher"):
        Asked(Stored(Mean(Net(1), Net(2)), path), kind="values")


def test_a_sample_is_known_by_what_its_teacher_sees(path: Path) -> None:
    asked = Asked(Stored(CrossModal(Net()), path))
    first = asked(batch(0), batch(1))
    assert torch.equal(asked(batch(2), batch(1)), first) and asked.runs == 1
    assert torch.equal(asked.teacher.shown((batch(0), batch(1)))[0], batch(0))


def test_whole_numbers_for_a_batch_are_part_of_every_sample(path: Path) -> None:
    class Scaled(Net):
        def forward(self, x: Tensor, scale: Tensor, more: int) -> Tensor:
            return super().forward(x) * scale + more

    asked = Asked(Stored(Scaled(), path))
    first = asked(batch(), torch.tensor(2.0), 1)
    assert not torch.equal(asked(batch(), torch.tensor(3.0), 1), first)
    assert not torch.equal(asked(batch(), torch.tensor(2.0), 0), first)
    assert torch.equal(asked(batch(), torch.tensor(2.0), 1), first) and asked.runs == 3


def test_no_more_is_kept_than_was_allowed_and_the_rest_is_computed_each_time(path: Path) -> None:
    asked = Asked(Stored(Net(), path, largest=10 * (256 + 16)))
    for _ in range(2):
        for seed in range(3):
            assert torch.allclose(asked(batch(seed)), Net()(batch(seed)))
    assert asked.runs == 3 + 2 and len(asked.said) == 1 and "is full (2,720 bytes)" in asked.said[0]
    asked.teacher.save()
    assert safe_open(path, "pt").get_slice("0/keys").get_shape() == [10, 16]


def test_more_than_two_gigabytes_may_be_allowed(path: Path) -> None:
    assert torch.allclose(Asked(Stored(Net(), path, largest=2**33))(batch()), Net()(batch()))


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def without_a_column(path: Path) -> None:
    """Writes a file that is whole, and lacks the outputs."""
    with safe_open(path, "pt") as file:
        header, keys = file.metadata(), {"0/keys": file.get_tensor("0/keys"), "0/5": torch.zeros(3)}
    save_file(keys, path, {**header, "checksum": _checksum(keys)})


@pytest.mark.parametrize("damage", [truncated, flipped, emptied, without_a_column])
def test_a_damaged_file_is_told_of_and_made_anew(path: Path, damage: Any) -> None:
    kept(path, batch())
    whole = {name: tensor.clone() for name, tensor in load_file(path).items()}  # the file stands behind what is loaded
    damage(path)
    asked = Asked(Stored(Net(), path))
    assert len(asked.said) == 1 and str(path) in asked.said[0] and "answers anew" in asked.said[0]
    assert torch.allclose(asked(batch()), Net()(batch())) and asked.runs == 1
    asked.teacher.save()
    assert load_file(path).keys() == whole.keys() and all(
        torch.equal(load_file(path)[key], whole[key]) for key in whole
    )
    assert not Asked(Stored(Net(), path)).said


def test_a_file_of_another_teacher_or_of_another_kind_is_refused_and_stays(path: Path) -> None:
    kept(path, batch(), seed=1)
    before = path.read_bytes()
    with pytest.raises(PenjingError, match="another teacher, or of one with other weights: delete it"):
        Asked(Stored(Net(2), path))
    assert path.read_bytes() == before
    save_file({"layer.weight": torch.zeros(2)}, path)
    before = path.read_bytes()
    with pytest.raises(PenjingError, match=r"something else.*another path"):
        Asked(Stored(Net(2), path))
    assert path.read_bytes() == before


def test_where_nothing_can_be_written_the_old_file_stays(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept(path, batch(0))
    before = path.read_bytes()
    asked = Asked(Stored(Net(), path))
    asked(batch(1))

    def full(tensors: Any, to: Path, header: Any) -> None:
        Path(to).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys.modules[Answers.__module__], "save_file", full)
    with pytest.raises(PenjingError, match=r"can't be written to .*No space left"):
        asked.teacher.save()
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


def test_nothing_is_written_where_nothing_is_new(path: Path) -> None:
    kept(path, batch())
    before = path.stat().st_ino
    asked = Asked(Stored(Net(), path))
    asked(batch())
    asked.teacher.save()
    assert path.stat().st_ino == before


def test_the_file_holds_answers_and_nothing_else(path: Path) -> None:
    kept(path, batch())
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert set(header) == {"__metadata__", "0/keys", "0/0"}
    assert set(header["__metadata__"]) == {"format", "teacher", "checksum"}


@pytest.mark.parametrize(
    ("nest", "said"),
    [
        (lambda outputs: outputs.mean(), r"shape \(\)"),
        (lambda outputs: (outputs, outputs[:3]), r"shape \(3, 4\)"),
        (lambda outputs: (outputs, 7), "type int"),
    ],
)
def test_outputs_without_a_row_for_each_sample_are_refused(path: Path, nest: Any, said: str) -> None:
    with pytest.raises(PenjingError, match=rf"each of the 8 samples .*{said}"):
        Asked(Stored(Net(nest=nest), path))(batch())


@pytest.mark.parametrize("inputs", [(torch.tensor(1.0),), (batch(), object())])
def test_inputs_that_can_not_be_told_apart_are_refused(path: Path, inputs: tuple[Any, ...]) -> None:
    with pytest.raises(PenjingError, match="can't be stored"):
        Asked(Stored(One(nn.Identity()), path))(*inputs)


@pytest.mark.parametrize("teacher", [Ema(), Confidence(Net(1), Net(2)), Stored(Net(), "a.safetensors")])
def test_answers_that_hang_on_more_than_the_inputs_are_not_stored(path: Path, teacher: Teacher) -> None:
    with pytest.raises(PenjingError, match=f"{type(teacher).__name__} aren't the same each time"):
        Stored(teacher, path)


@pytest.mark.parametrize("choices", [{"path": "answers.pt"}, {"path": 5}, {"largest": 0}, {"largest": "1 GB"}])
def test_choices_that_can_not_be_are_refused(choices: dict[str, Any]) -> None:
    with pytest.raises(PenjingError, match=next(iter(choices))):
        Stored(Net(), **choices)
