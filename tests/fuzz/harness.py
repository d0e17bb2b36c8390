"""A property over generated cases as a test: short and reproducible, or for minutes with new cases."""

import functools
import linecache
import os
import time
import traceback

from hypothesis import HealthCheck, given, note, settings

import torchrl_ob

PACKAGE = os.path.dirname(torchrl_ob.__file__)
ROUND = 50  # cases between two looks at the clock


class Budget:
    """Seconds for each property; none in the short profile."""

    seconds: float | None = None


def fuzz(cases, check, short):
    """The test that ``check(case)`` holds, for ``short`` cases or as long as the budget lasts.

    Of a case that fails the smallest is printed as a test to paste.
    """
    count = 0

    @functools.wraps(check)
    def body(case):
        nonlocal count
        count += 1
        note(pasted(check, case))
        check(case)

    def test(record_property):
        nonlocal count
        count = 0
        options = {"deadline": None, "suppress_health_check": list(HealthCheck)}
        options |= {"print_blob": True, "report_multiple_bugs": False}
        size = short if Budget.seconds is None else ROUND
        run = settings(settings(), max_examples=size, **options)(given(cases)(body))
        end = time.monotonic() + (Budget.seconds or 0)
        run()
        while time.monotonic() < end:
            run()
        record_property("cases", count)

    test.__name__ = check.__name__.replace("check_", "test_")
    test.is_property = True
    return test


def pasted(check, case):
    """A case as the lines of a test."""
    names = ", ".join(sorted({check.__name__, type(case).__name__}, key=str.lower))
    return (
        f"\nfrom math import inf, nan\n\nfrom {check.__module__} import {names}\n\n\n"
        f"def test_found():\n    {check.__name__}({case!r})\n"
    )


def is_refusal(error):
    """Whether the library itself raised, rather than something that it called with what it was given."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    line = linecache.getline(frame.filename, frame.lineno).strip()
    by_name = line.startswith(("raise ", "torch._assert_async("))
    return os.path.dirname(frame.filename).startswith(PACKAGE) and by_name


def require_refusal(error):
    """Fail, with the riddle, where an error is none of the library's own."""
    if not is_refusal(error):
        raise AssertionError(f"a riddle: {type(error).__name__}: {error}") from error
