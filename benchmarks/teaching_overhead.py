"""What a teacher costs a training step of ResNet-20: ResNet-56 beside it, its stored answers, hints, and what confidence adds.

python benchmarks/teaching_overhead.py      # one thread, batches of 128 images of 32 pixels, random weights: time alone counts

Steps of all kinds are taken in turn, so that a busy machine slows all of them alike; times are of the process, not the clock on
the wall. Stored answers are measured where they are found, which is what a step costs after the first epoch.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from _tables import publish
from penjing import zoo
from penjing.distillation import Confidence, One, Stored, Teacher
from penjing.distillation.teachers import Lesson
from penjing.graph import capture
from penjing.tasks import Classification
from penjing.training.objective import Objective
from penjing.training.optimizers import make_optimizer
from penjing.training.settings import TrainingSettings, Variant

BATCH = 128
ROUNDS = 10  # timed steps of each kind, after one for each batch
BATCHES = 4
PLAIN = Variant()
CPU = torch.device("cpu")
PLAIN_STEP = "a step without a teacher"
FORWARD = "the teacher's forward pass alone"


def settings(signal: str) -> TrainingSettings:
    """Returns the settings of `recover` with this signal, and all else by default."""
    return TrainingSettings(signal=signal, lr=0.01)


def step(teacher: Teacher | None, signal: str, batches: list[Any]) -> Callable[[int], object]:
    """Returns what takes a step on one of the batches."""
    student = capture(zoo.resnet20(), batches[0][0][:2])
    ready = None if teacher is None else teacher.begin(student, CPU, "classes")
    objective = Objective(Classification(10), ready, settings(signal), CPU)
    objective.prepare(student, batches[0])
    student.train()
    tapped = objective.tapped(student).train()
    descent = make_optimizer(student, objective.settings, 0.01, objective.parameters())

    def take(number: int) -> None:
        objective.loss(tapped, batches[number % BATCHES], PLAIN).backward()
        descent.step()
        descent.zero_grad()

    return take


def answers(teacher: Teacher, batches: list[Any]) -> Callable[[int], object]:
    """Returns what asks a teacher alone of one of the batches."""
    ready = teacher.begin(torch.nn.Identity(), CPU, "classes")

    def run(network: torch.nn.Module, inputs: Sequence[Any]) -> Any:
        with torch.no_grad():
            return network(*inputs)

    return lambda number: ready.answers(Lesson(batches[number % BATCHES][:1], None, run))


def main() -> None:
    """Measures steps of each kind, and what a teacher's answers take alone."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    batches = [(torch.randn(BATCH, 3, 32, 32), torch.randint(10, (BATCH,))) for _ in range(BATCHES)]
    teacher, other = (capture(zoo.resnet56(), batches[0][0][:2]) for _ in range(2))
    with tempfile.TemporaryDirectory() as folder:
        stored = Stored(teacher, Path(folder) / "answers.safetensors")
        kinds = {
            PLAIN_STEP: step(None, "soft_labels", batches),
            "a step with stored answers": step(stored, "soft_labels", batches),
            "a step with a teacher": step(One(teacher), "soft_labels", batches),
            "a step with a teacher and hints": step(One(teacher), "hints", batches),
            "a step with two teachers, by confidence": step(Confidence(teacher, other), "soft_labels", batches),
            FORWARD: answers(One(teacher), batches),
            "stored answers alone": answers(stored, batches),
        }
        times: dict[str, list[float]] = {name: [] for name in kinds}
        for number in range(BATCHES + ROUNDS):
            for name, take in kinds.items():
                begun = time.process_time()
                take(number)
                if number >= BATCHES:
                    times[name].append(time.process_time() - begun)
    passes = {
        "a step with a teacher": 1,
        "a step with a teacher and hints": 1,
        "a step with two teachers, by confidence": 2,
    }
    rows = []
    for name, own in times.items():
        # Of each round by itself: other work on the machine slows all steps of a round.
        ratios = [each / plain for each, plain in zip(own, times[PLAIN_STEP], strict=True)]
        count = passes.get(name, 0)
        whole = [plain + count * forward for plain, forward in zip(times[PLAIN_STEP], times[FORWARD], strict=True)]
        beside = statistics.median(each / both for each, both in zip(own, whole, strict=True))
        rows.append([name, f"{1000 * statistics.median(own):.1f}", f"{statistics.median(ratios):.3f}",
                     f"{beside:.3f}" if count else ""])  # fmt: skip
    publish(
        "teaching_overhead", ["", "ms", "÷ a step without a teacher", "÷ that and the teachers' forward passes"], rows
    )


if __name__ == "__main__":
    main()
