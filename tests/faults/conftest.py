"""ONLY=relay: just the tests of the relay and its standby; another ONLY: just those that load the whole chain."""
import os

from relay_world import Case


def pytest_collection_modifyitems(config, items):
    only = os.environ.get("ONLY")
    chosen = [item for item in items if has_case(item)]
    if only and only != "all":
        chosen = [item for item in chosen if item.path.name.startswith("test_relay_") == (only == "relay")]
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = chosen


def has_case(item):
    """SOURCE and DELIVERY may leave nothing for a test."""
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    return "case" not in parameters or isinstance(parameters["case"], Case)
