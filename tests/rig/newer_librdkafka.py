"""The librdkafka that the Python client brings: newer than the system's, with the same symbols, for what the system's lacks."""
import os
from pathlib import Path

import confluent_kafka

from processes import RigError


def library():
    libraries = Path(confluent_kafka.__file__).resolve().parents[1] / "confluent_kafka.libs"
    found = sorted(libraries.glob("librdkafka-*.so*"))
    if not found:
        raise RigError(f'no librdkafka in "{libraries}": the Python client was not installed from a wheel')
    return found[0]


def environment():
    """For a program of ours: it uses that library. A sanitizer built into it wants to be the first to be loaded, but need not."""
    return {"LD_BIND_NOW": "1", "LD_PRELOAD": str(library()),
            "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"}
