"""Which precision, memory layout and number of threads train this model fastest on this machine: a few real steps tell."""

import copy
import itertools
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from penjing.training.objective import Objective
from penjing.training.optimizers import make_optimizer
from penjing.training.settings import TrainingSettings, Variant

ROUNDS = 3
# Below this number of steps, measuring four variants would cost more than choosing the best of them saves.
WORTH_MEASURING = 200
# A single thread must beat several by this much. On a machine that others use, threads that wait for one another made steps
# eight times slower; on an idle one they never lose so clearly, so equal runs there take the same number.
MUCH = 0.6
# A variant must beat plain float32 by more than noise does, or equal runs would differ for nothing.
CLEARLY = 0.9


def candidates(graph: nn.Module, settings: TrainingSettings, steps: int) -> list[Variant]:
    """Returns the variants that the settings leave open, the plainest first; one if measuring isn't worth it."""
    # bfloat16 has eight bits of precision: it would blur the very rounding that a quantised graph learns to bear.
    open_precisions = ["float32"] if is_quantized(graph) else ["float32", "bfloat16"]
    precisions = open_precisions if settings.precision == "auto" else [settings.precision]
    layouts = [False, True] if settings.channels_last == "auto" else [settings.channels_last]
    variants = [Variant(precision, layout) for precision in precisions for layout in layouts]
    return variants if steps >= WORTH_MEASURING else variants[:1]


def thread_counts(steps: int, device: torch.device) -> list[int]:
    """Returns the numbers of threads to try, the usual one first; none where there is nothing to choose.

    Who sets OMP_NUM_THREADS has chosen: sums over threads round otherwise with each number of them.
    """
    usual = torch.get_num_threads()
    chosen = "OMP_NUM_THREADS" in os.environ or device.type != "cpu"
    return [] if usual == 1 or chosen or steps < WORTH_MEASURING else [usual, 1]


def is_quantized(graph: nn.Module) -> bool:
    """Whether quantise/dequantise ops stand in the graph (a plain module holds none)."""
    program = getattr(graph, "program", None)
    return program is not None and any("quantize" in str(node.target) for node in program.graph.nodes)


def step_seconds(
    graph: nn.Module,
    objective: Objective,
    settings: TrainingSettings,
    batches: Sequence[Any],
    variants: Sequence[Variant],
    allowed: float,
) -> dict[Variant, float]:
    """Times whole training steps: the median of interleaved steps in seconds, after one to warm up.

    The steps run on a copy of the graph, which keeps its weights, its batch-norm statistics and its masks. The
    caller keeps the random generators.

    Args:
        graph: what would be trained, on the objective's device.
        objective: gives the loss.
        settings: the optimiser's.
        batches: real ones, one or more.
        variants: what to compare.
        allowed: seconds; only the first variant is timed if all would take longer.
    """
    model = copy.deepcopy(graph).train()
    optimizer = make_optimizer(model, settings, lr=0.0)
    timings: dict[Variant, list[float]] = {variant: [] for variant in variants}
    for turn in range(1 + ROUNDS):
        for variant in list(timings):
            set_layout(model, variant.channels_last)
            optimizer.state.clear()  # momentum in the other variant's layout would slow this one down
            with threads_of(variant):
                start = time.perf_counter()
                objective(model, batches[turn % len(batches)], variant).backward()
                optimizer.step()
                optimizer.zero_grad()
                if objective.device.type != "cpu":
                    torch.accelerator.synchronize()
                seconds = time.perf_counter() - start
            timings[variant].append(seconds)
            if turn == 0 and seconds * (1 + ROUNDS) * len(timings) > allowed:
                timings = {variants[0]: timings[variants[0]]}
                break
    return {variant: statistics.median(times[1:]) for variant, times in timings.items()}


def fastest(seconds: dict[Variant, float], least: float = CLEARLY) -> Variant:
    """Returns the fastest variant, or the first if none takes less than the share `least` of its time."""
    plain, best = next(iter(seconds)), min(seconds, key=lambda variant: seconds[variant])
    return best if seconds[best] < least * seconds[plain] else plain


@contextmanager
def threads_of(variant: Variant) -> Iterator[None]:
    """Lets PyTorch compute with a variant's number of threads while the block runs."""
    before = torch.get_num_threads()
    if variant.threads in (None, before):
        yield
        return
    assert variant.threads is not None
    torch.set_num_threads(variant.threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def set_layout(model: nn.Module, channels_last: bool) -> None:
    """Lays the model's 4-D tensors out in memory, in place; their values and identities stay.

    Tensors of other ranks stay as they are: the layout is one of images, and `.to(memory_format=…)` fails on the 5-D
    weights of 3-D convolutions.
    """
    layout = torch.channels_last if channels_last else torch.contiguous_format
    for tensor in itertools.chain(model.parameters(), model.buffers()):
        if tensor.dim() == 4:
            tensor.data = tensor.data.contiguous(memory_format=layout)
