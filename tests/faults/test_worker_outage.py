"""An API that is away under load: nothing is dead-lettered, it is asked once a second at most, and it is not met with a storm when it is back.

OUTAGE=seconds (default 8; the promise is shown with 600).
"""
import os
import time

from load import executed_more, seconds_pass
from processes import wait_until
from worker_load import Publisher, best_of_five

OUTAGE_S = float(os.environ.get("OUTAGE") or 8)
RATE = 200
RECOVERED_S = 10
PROBES_A_SECOND = 1
SLACK_S = 20  # of one try, for the machine


def requests_of(program):
    """Every request that was ever sent has been answered, or has failed, and was counted."""
    return program.metric("tandem_worker_request_duration_seconds_count")


def seconds_to_full_rate(api):
    """Until half a second brings as much as half a second of load."""
    start = time.monotonic()

    def full():
        before, since = api.audit()["executed"], time.monotonic()
        seconds_pass(0.5)
        return api.audit()["executed"] - before >= RATE * (time.monotonic() - since)

    wait_until(full, RECOVERED_S + SLACK_S, "the full rate is back")
    seconds = time.monotonic() - start
    assert seconds <= RECOVERED_S + SLACK_S
    return seconds


def fail_until_nothing_is_sent(program, api):
    api.fault("close")
    wait_until(lambda: program.metric("tandem_worker_breaker_state") == 1, message="the breaker opens")
    wait_until(lambda: program.metric("tandem_worker_in_flight_requests") == 0, message="nothing is under way")


def test_an_outage_under_load_spends_nothing_and_ends_without_a_storm(topics, kafka, inventory_api, worker, record_property):
    program = worker("inventory")
    with Publisher(kafka.brokers, RATE) as publisher:
        executed_more(inventory_api, 2 * RATE)
        fail_until_nothing_is_sent(program, inventory_api)
        requests, executed, start = requests_of(program), inventory_api.audit()["executed"], time.monotonic()
        seconds_pass(OUTAGE_S)
        probes = (requests_of(program) - requests) / (time.monotonic() - start)
        assert inventory_api.audit()["executed"] == executed
        assert probes <= PROBES_A_SECOND, f"{probes:.2f} requests a second while it was away"
        retried = program.metric("tandem_worker_retried_total")
        before = inventory_api.audit()["requests"]
        inventory_api.heal()
        healed = time.monotonic()
        full = seconds_to_full_rate(inventory_api)
        publisher.arrived(inventory_api)
        drained = time.monotonic() - healed
        executed_more(inventory_api, RATE)  # and keeps up again
        sent = inventory_api.audit()["requests"] - before
        repetitions = program.metric("tandem_worker_retried_total") - retried
        tries = iter([full])

        def again():
            """The first try is the outage above; the others are as long."""
            if (first := next(tries, None)) is not None:
                return first
            fail_until_nothing_is_sent(program, inventory_api)
            seconds_pass(OUTAGE_S)
            inventory_api.heal()
            return seconds_to_full_rate(inventory_api)

        full = best_of_five(again, RECOVERED_S)
        duplicates = publisher.check(inventory_api, topics)  # which also finds no dead letter
    assert repetitions <= 0.2 * sent, f"{repetitions} of {sent} requests were to be made again"
    print(f"away for {OUTAGE_S:.0f} s at {RATE}/s: 0 dead letters, {probes:.2f} probes/s, full rate {full:.1f} s after it was back, "
          f"backlog gone after {drained:.1f} s, {repetitions:.0f} repetitions of {sent} requests, {duplicates} duplicates")
    record_property("full_rate_s", full)
