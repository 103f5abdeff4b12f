"""ONLY=relay or worker: just the tests of the relay and its standby, or of the workers; another ONLY: those of the whole chain."""
import os

from relay_world import Case

ROOMS = ("relay", "worker")


def pytest_collection_modifyitems(config, items):
    only = os.environ.get("ONLY")
    chosen = [item for item in items if has_case(item)]
    if only and only != "all":
        chosen = [item for item in chosen if room_of(item) == (only if only in ROOMS else None)]
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = chosen


def room_of(item):
    """relay, worker, or None: the whole chain."""
    return next((room for room in ROOMS if item.path.name.startswith(f"test_{room}_")), None)


def has_case(item):
    """SOURCE and DELIVERY may leave nothing for a test."""
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    return "case" not in parameters or isinstance(parameters["case"], Case)
