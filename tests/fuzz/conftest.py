"""Profiles: short and reproducible by default; ``fuzz`` draws new cases for MINUTES."""

import os

from hypothesis import Phase, settings

from fuzz.harness import Budget

settings.register_profile("fuzz", deadline=None, derandomize=False, print_blob=True)
settings.register_profile("mutants", settings.get_profile("default"), phases=(Phase.generate,))


def pytest_collection_finish(session):
    properties = [x for x in session.items if getattr(x.obj, "is_property", False)]
    if settings.get_current_profile_name() == "fuzz" and properties:
        workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
        minutes = float(os.environ.get("MINUTES", "10"))
        Budget.seconds = 60 * minutes * min(workers, len(properties)) / len(properties)


def pytest_terminal_summary(terminalreporter):
    passed = terminalreporter.stats.get("passed", [])
    cases = {x.nodeid: dict(x.user_properties).get("cases") for x in passed}
    cases = {name: count for name, count in cases.items() if count is not None}
    if cases:
        for name, count in cases.items():
            terminalreporter.write_line(f"{count:7} cases  {name}")
        terminalreporter.write_line(f"{sum(cases.values()):7} cases in all")
