"""Finds, by timing a few real steps, the precision, memory layout and number of threads that train a model fastest here."""

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

ROUNDS = 3  # timed steps per variant
# Number of steps below which measuring four variants would cost more time than the best of them saves.
WORTH_MEASURING = 200
# One thread is chosen if its steps take less than this share of the time of several threads. On a machine that others use,
# threads that wait for one another made steps eight times slower; on an idle machine several threads never lose so clearly,
# so equal runs there use the same number of threads.
MUCH = 0.6
# A variant is chosen if its steps take less than this share of plain float32's time. A smaller gain may be noise, and would
# make equal runs differ for nothing.
CLEARLY = 0.9


def candidates(graph: nn.Module, settings: TrainingSettings, steps: int) -> list[Variant]:
    """Returns the variants that the settings leave open, the plainest first; only that one if measuring isn't worth it."""
    # bfloat16 has eight bits of precision: it would blur the very rounding that a quantised graph learns to cope with.
    open_precisions = ["float32"] if is_quantized(graph) else ["float32", "bfloat16"]
    precisions = open_precisions if settings.precision == "auto" else [settings.precision]
    layouts = [False, True] if settings.channels_last == "auto" else [settings.channels_last]
    variants = [Variant(precision, layout) for precision in precisions for layout in layouts]
    return variants if steps >= WORTH_MEASURING else variants[:1]


def thread_counts(steps: int, device: torch.device) -> list[int]:
    """Returns the numbers of threads to try, the usual one first; none where there is nothing to choose.

    A user who sets OMP_NUM_THREADS has chosen the number. (Sums over threads round differently for each number of threads.)
    """
    usual = torch.get_num_threads()
    chosen = "OMP_NUM_THREADS" in os.environ or device.type != "cpu"
    return [] if usual == 1 or chosen or steps < WORTH_MEASURING else [usual, 1]


def is_quantized(graph: nn.Module) -> bool:
    """Tells whether the graph holds quantise or dequantise ops (a plain module holds none)."""
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
    """Times whole training steps, interleaved and after one to warm up; returns each variant's median in seconds.

    The steps run on a copy, so the graph keeps its weights, its batch-norm statistics and its masks; signal and balance stay
    as they were, too. The caller must restore the random generators.

    Args:
        graph: the model that would be trained, on the objective's device.
        objective: gives the loss.
        settings: settings of the optimiser.
        batches: one or more batches of the training data.
        variants: the variants to compare.
        allowed: seconds; only the first variant is timed if timing all would take longer.
    """
    model = copy.deepcopy(graph).train()
    optimizer, tapped = make_optimizer(model, settings, lr=0.0), objective.tapped(model).train()
    timings: dict[Variant, list[float]] = {variant: [] for variant in variants}
    with objective.unchanged():
        for turn in range(1 + ROUNDS):
            for variant in list(timings):
                set_layout(model, variant.channels_last)
                optimizer.state.clear()  # momentum in another variant's layout would slow this variant down
                with threads_of(variant):
                    start = time.perf_counter()
                    objective.loss(tapped, batches[turn % len(batches)], variant).backward()
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
    """Returns the fastest variant, or the first if no variant takes less than the share `least` of the first one's time."""
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
    """Changes the memory layout of the model's 4-D tensors, in place; their values and identities stay.

    Tensors of other ranks stay as they are: the layout is meant for images, and `.to(memory_format=…)` fails on the 5-D
    weights of 3-D convolutions.
    """
    layout = torch.channels_last if channels_last else torch.contiguous_format
    for tensor in itertools.chain(model.parameters(), model.buffers()):
        if tensor.dim() == 4:
            tensor.data = tensor.data.contiguous(memory_format=layout)
