"""An API that is away under load: nothing is dead-lettered, it is asked once a second at most, and it is not met with a storm when it is back.

OUTAGE=seconds (default 8; the promise is shown with 600).
"""
import os
import time

from load import executed_more, seconds_pass
from processes import wait_until
from worker_load import Publisher, median_of_five

SHORT_S = 8  # enough for the longest pause between probes
OUTAGE_S = float(os.environ.get("OUTAGE") or SHORT_S)
RATE = 200
DELAY_MS = 100  # of the API, so that the limit has to grow back: its floor, four requests at once, is a fifth of the rate
RECOVERED_S = 10
PROBES_A_SECOND = 1
REPEATED_SHARE = 0.2  # of all requests from before the outage until the full rate is back, the probes apart
SLACK_S = 20  # of one try, for the machine


def requests_of(program):
    """Every request that was ever sent has been answered, or has failed, and was counted."""
    return program.metric("tandem_worker_request_duration_seconds_count")


def share_of_repetitions(*spans):
    """Of the requests in these spans, each given by the API's audits before and after it: an event needs one."""
    sent = sum(after["requests"] - before["requests"] for before, after in spans)
    needed = sum(after["executed"] - before["executed"] for before, after in spans)
    print(f"{sent - needed} repetitions among {sent} requests")
    return (sent - needed) / sent


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


def be_back(api):
    api.heal()
    api.fault("delay", delay_ms=DELAY_MS)


def fail_until_nothing_is_sent(program, api):
    api.heal()
    api.fault("close")
    wait_until(lambda: program.metric("tandem_worker_breaker_state") == 1, message="the breaker opens")
    wait_until(lambda: program.metric("tandem_worker_in_flight_requests") == 0, message="nothing is under way")


def test_an_outage_under_load_spends_nothing_and_ends_without_a_storm(topics, kafka, inventory_api, worker, record_property):
    program = worker("inventory")
    be_back(inventory_api)
    with Publisher(kafka.brokers, RATE) as publisher:
        before = inventory_api.audit()
        executed_more(inventory_api, 2 * RATE)
        fail_until_nothing_is_sent(program, inventory_api)
        quiet = inventory_api.audit()
        requests, start = requests_of(program), time.monotonic()
        seconds_pass(OUTAGE_S)
        probes = (requests_of(program) - requests) / (time.monotonic() - start)
        still_quiet = inventory_api.audit()
        assert still_quiet["executed"] == quiet["executed"]
        assert probes <= PROBES_A_SECOND, f"{probes:.2f} requests a second while it was away"
        be_back(inventory_api)
        healed = time.monotonic()
        full = seconds_to_full_rate(inventory_api)
        inventory_api.heal()  # what has waited would take as long again
        repetitions = share_of_repetitions((before, quiet), (still_quiet, inventory_api.audit()))
        publisher.arrived(inventory_api)
        drained = time.monotonic() - healed
        executed_more(inventory_api, RATE)  # and keeps up again
        tries = iter([full])

        def again():
            """The first try is the outage above; the others need not be long."""
            if (first := next(tries, None)) is not None:
                return first
            fail_until_nothing_is_sent(program, inventory_api)
            seconds_pass(min(OUTAGE_S, SHORT_S))
            be_back(inventory_api)
            return seconds_to_full_rate(inventory_api)

        full = median_of_five(again, RECOVERED_S)
        duplicates = publisher.check(inventory_api, topics)  # which also finds no dead letter
    assert repetitions <= REPEATED_SHARE, f"{repetitions:.1%} of the requests were repetitions"
    print(f"away for {OUTAGE_S:.0f} s at {RATE}/s: 0 dead letters, {probes:.2f} probes/s, full rate {full:.1f} s after it was back, "
          f"backlog gone after {drained:.1f} s, {repetitions:.1%} of the requests repetitions, {duplicates} duplicates")
    record_property("full_rate_s", full)
