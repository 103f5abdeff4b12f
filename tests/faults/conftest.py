"""ONLY=relay: just the tests of the relay and its standby; another ONLY: just those that load the whole chain."""
import os


def pytest_collection_modifyitems(config, items):
    only = os.environ.get("ONLY")
    if not only or only == "all":
        return
    chosen = [item for item in items if item.path.name.startswith("test_relay_") == (only == "relay")]
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = chosen
