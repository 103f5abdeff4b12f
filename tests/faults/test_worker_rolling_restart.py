"""Three workers are restarted one after another under load: nothing twice, nothing lost, nothing out of order.

RESTARTS=n rounds, in each of which all three are restarted (default 1).
"""
import os

import pytest

from load import Audit, Load, executed_more

RATE = 200
ROUNDS = int(os.environ.get("RESTARTS") or 1)


def restart(replica, api):
    assert replica.stop() == 0
    executed_more(api, 20)
    replica.start_again()
    replica.wait_ready()
    executed_more(api, 50)


@pytest.mark.parametrize("destination", ["inventory", "crm"])
@pytest.mark.parametrize("names", ["static", "dynamic"])
def test_a_rolling_restart_repeats_nothing(request, database, topics, orders_service, relay, worker, destination, names):
    api = request.getfixturevalue(f"{destination}_api")
    api.fault("delay", delay_ms=100)  # so that some twenty requests are under way at every moment
    relay()
    replicas = [worker(destination, ready=False, instance_id=f"{destination}-{n}" if names == "static" else None)
                for n in range(3)]
    for replica in replicas:
        replica.wait_ready()
    with Load(orders_service().url, RATE) as load:
        executed_more(api, 100)
        for _ in range(ROUNDS):
            for replica in replicas:
                restart(replica, api)
    assert Audit(database, topics, **{destination: api}).check(load) == {destination: 0}
    print(f"{destination}, {names} ids: {ROUNDS} rolling restarts of three, {load.confirmed} orders confirmed, 0 repeated")
