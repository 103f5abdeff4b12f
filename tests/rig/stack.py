"""The whole flow on this machine: Postgres, Kafka, sample service, relay, both workers and both sample APIs; up and down."""
import argparse
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from processes import RigError
from programs import ROOT, OrdersService, SampleApi, new_relay, new_worker
from rig_kafka import Kafka
from rig_postgres import Postgres
from running import stop_directory
from topics import Topics

PARTITIONS = 6


class Stack:
    def __init__(self, directory):
        self.dir = Path(directory).absolute()
        self.postgres = Postgres(self.dir)
        self.kafka = Kafka(self.dir)
        self.inventory_api = SampleApi(self.dir, "inventory")
        self.crm_api = SampleApi(self.dir, "crm")
        self.orders = self.relay = self.inventory = self.crm = None

    def start(self, relay=None, worker=None):
        """Everything, ready; relay and worker: further options of theirs."""
        if self.dir.exists():
            raise RigError(f'"{self.dir}" is there already: `make down` first')
        try:
            self.start_servers()
            self.start_programs(relay or {}, worker or {})
            self.write_env()
        except BaseException:
            self.stop()
            raise
        return self

    def start_servers(self):
        servers = [self.postgres.start_new, self.kafka.start_new, self.inventory_api.run_ready, self.crm_api.run_ready]
        with ThreadPoolExecutor(len(servers)) as pool:
            for done in [pool.submit(start) for start in servers]:
                done.result()
        subprocess.run(["make", "-s", "-C", str(ROOT), "migrate", f"DATABASE_URL={self.database_url}"],
                       stdin=subprocess.DEVNULL, check=True)
        Topics(self.kafka.brokers).create("tandem.orders", PARTITIONS)

    def start_programs(self, relay, worker):
        brokers = self.kafka.brokers
        self.orders = OrdersService(self.dir, self.database_url)
        self.relay = new_relay(self.dir, self.database_url, brokers, **relay)
        self.inventory = new_worker(self.dir, "inventory", brokers, self.inventory_api.url, **worker)
        self.crm = new_worker(self.dir, "crm", brokers, self.crm_api.url, **worker)
        ours = [self.orders, self.relay, self.inventory, self.crm]
        for program in ours:
            program.run()
        for program in ours:
            program.wait_ready()

    @property
    def database_url(self):
        return self.postgres.url()

    def write_env(self):
        values = {
            "DATABASE_URL": self.database_url, "KAFKA_BROKERS": self.kafka.brokers, "ORDERS_URL": self.orders.url,
            "INVENTORY_URL": self.inventory_api.url, "CRM_URL": self.crm_api.url, "RELAY_ADMIN_URL": self.relay.admin_url,
            "INVENTORY_ADMIN_URL": self.inventory.admin_url, "CRM_ADMIN_URL": self.crm.admin_url}
        text = "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())
        (self.dir / "env").write_text(text, encoding="utf-8")

    def stop(self):
        stop_directory(self.dir)


def main():
    parser = argparse.ArgumentParser(prog="stack", description=__doc__)
    parser.add_argument("verb", choices=["up", "down"])
    parser.add_argument("--dir", default=str(ROOT / "build" / "stack"))
    args = parser.parse_args()
    try:
        if args.verb == "down":
            stop_directory(Path(args.dir).absolute())
            return 0
        stack = Stack(args.dir).start()
        print(f"up: the addresses are in {args.dir}/env; `make down` ends it")
        print((stack.dir / "env").read_text(encoding="utf-8"), end="")
    except (RigError, subprocess.CalledProcessError) as error:
        print(f"stack: {error}", file=sys.stderr)
        return 111
    return 0


if __name__ == "__main__":
    sys.exit(main())
