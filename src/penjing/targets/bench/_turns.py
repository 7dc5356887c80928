"""Times several calls in turns, so that drifts of the machine hit all of them alike. It also runs on devices, by itself."""

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

WARM_UP_SECONDS = 0.2  # of untimed calls per model, before the first round
BURST_SECONDS = 0.01  # of timed calls of one model in a row, after one untimed call that refills the caches
LEAST_ROUNDS = 3  # rounds that are made even past the time limit


@contextmanager
def no_collection() -> Iterator[None]:
    """Keeps Python from collecting garbage, which would add to the time of the call that it interrupts."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@no_collection()
def in_turns(calls: Mapping[str, Callable[[], Any]], runs: int, seconds: float) -> dict[str, list[float]]:
    """Returns the seconds of each timed call, by the calls' names.

    Each call is warmed up. Then rounds follow, in which every call, in alternating order, is made once untimed and then in a
    short burst of timed repeats.

    Args:
        calls: the functions to time, by name.
        runs: timed calls of each function after which timing ends.
        seconds: time, for all functions together, after which timing ends anyway; at least three rounds are made.
    """
    bursts = {name: max(1, min(runs, int(BURST_SECONDS / _warm_up(call)))) for name, call in calls.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    order = list(calls)
    end = time.perf_counter() + seconds
    rounds = 0
    while rounds < LEAST_ROUNDS or (min(map(len, times.values())) < runs and time.perf_counter() < end):
        for name in order:
            calls[name]()
            for _ in range(bursts[name]):
                start = time.perf_counter()
                calls[name]()
                times[name].append(time.perf_counter() - start)
        order.reverse()
        rounds += 1
    return times


def _warm_up(call: Callable[[], Any]) -> float:
    """Calls the function for a while; returns the fastest call's seconds."""
    fastest = float("inf")
    end = time.perf_counter() + WARM_UP_SECONDS
    rounds = 0
    while rounds < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        fastest = min(fastest, time.perf_counter() - start)
        rounds += 1
    return max(fastest, 1e-6)
