"""What runs in a directory of the rig, found again by its records, and ended in the right order."""
import shutil
from pathlib import Path

from processes import Process, RigError
from rig_kafka import Kafka
from rig_postgres import Postgres

SERVERS = {"kafka": Kafka, "postgres": Postgres}


def process_of(directory, name):
    return SERVERS.get(name, lambda where: Process(where, name))(directory)


def processes_in(directory):
    """In the order of stopping: programs, sample APIs, servers."""
    names = sorted((path.stem for path in Path(directory).glob("*.json")),
                   key=lambda name: (name in SERVERS, name.endswith("-api"), name))
    return [process_of(directory, name) for name in names]


def stop_directory(directory, wipe=True):
    """Everything ends, what uses a server before the server; one that does not want to is no reason to keep the others."""
    troubles = []
    for process in processes_in(directory):
        try:
            process.stop(timeout=30)
        except RigError as error:
            troubles.append(str(error))
        if wipe and process.name in SERVERS:
            process.wipe()
    if wipe:
        shutil.rmtree(directory, ignore_errors=True)
    if troubles:
        raise RigError("; ".join(troubles))
