"""kill -9 of any part at any moment under load: nothing lost, order kept, duplicates within G5.

KILLS=n kills (default 8); ONLY=inventory (or service, crm, kafka, postgres; several by comma) kills just these; SEED=n. The relay and
the workers alone have tests of their own: ONLY=relay, ONLY=worker.
"""
import os
import random

from load import Audit, Load, executed_more

RATE = 200
IN_FLIGHT = 16
DELAY_MS = 20  # of the APIs, so that also a worker that catches up delivers at most IN_FLIGHT / DELAY_MS
# G5: after a kill -9, what was in flight and what completed since the last acknowledged commit. Commits are 100 ms apart, and a worker
# whose commits are not acknowledged for twice as long sends nothing. The relay's part is what it published since it last stored
# its position, 50 ms apart, at the rate of the load.
DUPLICATES_PER_KILL = 2 * IN_FLIGHT + IN_FLIGHT * 200 // DELAY_MS + RATE // 10
PARTS = ["service", "relay", "inventory", "crm", "kafka", "postgres"]


def victims(seed):
    """Each part once before any comes twice, in random order."""
    only = [p for p in os.environ.get("ONLY", "").split(",") if p and p != "all"]
    assert set(only) <= set(PARTS), f"ONLY={os.environ['ONLY']}: there are {PARTS}"
    order, dice = [], random.Random(seed)
    while len(order) < int(os.environ.get("KILLS") or 8):
        order += dice.sample(only or PARTS, len(only or PARTS))
    return order[:int(os.environ.get("KILLS") or 8)], dice


def test_kill_9_of_any_part_loses_nothing_and_keeps_the_order(
        database, topics, kafka, postgres, inventory_api, crm_api, orders_service, relay, worker):
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(10**6))
    order, dice = victims(seed)
    print(f"SEED={seed}: {' '.join(order)}")  # shown when the test fails
    parts = {"service": orders_service(), "relay": relay(), "kafka": kafka, "postgres": postgres,
             "inventory": worker("inventory", in_flight_max=IN_FLIGHT, breaker_open_cap="1s"),
             "crm": worker("crm", in_flight_max=IN_FLIGHT, breaker_open_cap="1s")}
    for api in (inventory_api, crm_api):
        api.fault("delay", delay_ms=DELAY_MS)
    with Load(parts["service"].url, RATE) as load:
        for name in order:
            executed_more(inventory_api, dice.randrange(20, 200))
            parts[name].kill()
            parts[name].start_again()
            executed_more(inventory_api, 20)
            executed_more(crm_api, 20)
    audit = Audit(database, topics, inventory=inventory_api, crm=crm_api)
    duplicates = audit.check(load)
    print(f"{load.confirmed} confirmed, {load.failed} failed requests, duplicates {duplicates}, "
          f"in Kafka {audit.duplicates_in_kafka()}")
    assert max(duplicates.values()) <= len(order) * DUPLICATES_PER_KILL
