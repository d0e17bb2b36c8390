"""Settings of all tests, and of the examples in docstrings."""

import os
import sys
from functools import partial

# a process for each core: threads of torch's own would wait for one another
os.environ.setdefault("OMP_NUM_THREADS", "1")

import absl.logging
import pytest
import torch
from hypothesis import settings

# of JAX: Hydra closes all handlers, and this one would close the stream that it found, which is pytest's
absl.logging.get_absl_handler().python_handler.stream = sys.__stderr__

# the first call of a function pays for imports and allocations: no deadline for one example
settings.register_profile("default", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("default")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come last, so that what fails fast fails first; of them the longest file first."""
    for item in items:
        if {"experiments", "envs"} & {*item.path.parts}:  # of the tests, and of the package
            item.add_marker("slow")
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path in slow, item.path.name != "test_tutorials.py"))


@pytest.fixture(autouse=True)
def _same_numbers_in_any_order() -> None:
    """A test, or an example of a docstring, draws what it would draw alone."""
    torch.manual_seed(0)


@pytest.fixture
def graphs_run_eagerly(monkeypatch: pytest.MonkeyPatch) -> None:
    """The graphs that are compiled, run without inductor, whose C++ takes half a minute."""
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
