"""Tests draw the same random numbers every time, each by itself, so that a change is judged by what it changed.

To look for new counterexamples of property tests: `pytest --hypothesis-profile=exploring`, with `--hypothesis-seed=N` to come
back to them.
"""

import gc
import logging
import random

import numpy as np
import pytest
import torch
import torch._dynamo.config
from hypothesis import settings

settings.register_profile("steady", derandomize=True, deadline=None)
settings.register_profile("exploring", derandomize=False, deadline=None)
settings.load_profile("steady")

# Small networks repeat few calls: PyTorch's cache of what fake tensors gave, meant for deep ones, takes a quarter of a capture.
# Tests that start a process run with the cache.
torch._dynamo.config.fake_tensor_cache_enabled = False

# pytest listens to loggers that don't propagate; PyTorch would then write a record of every step of every export.
logging.getLogger("torch.__trace").propagate = True


def seed_generators() -> None:
    """Seeds the global generators of Python, NumPy and PyTorch."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


def pytest_collectstart(collector: pytest.Collector) -> None:
    """Seeds before a module is imported: what it draws doesn't depend on the modules before it."""
    seed_generators()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Seeds before a test and its fixtures: what it draws doesn't depend on the tests before it."""
    seed_generators()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Keeps modules and tests out of later garbage collections, which would look through all of them each time."""
    gc.collect()
    gc.freeze()
