/* Waits for a Kafka that does not answer: says so after two seconds, gives up after --timeout. */
#include <poll.h>
#include <stdio.h>

#include "worker/dlq/dlq_store_room.h"

#define RETRY_MS 100
#define TELL_NS (2 * NS_PER_S)

void dlq_store_wait_begin(struct dlq_store *s)
{
    s->waiting_since_ns = clock_monotonic_ns();
}

static int64_t deadline_ns(const struct dlq_store *s)
{
    return s->waiting_since_ns + s->cfg.timeout_ns;
}

static double timeout_s(const struct dlq_store *s)
{
    return (double)s->cfg.timeout_ns / (double)NS_PER_S;
}

int dlq_store_wait_ms(const struct dlq_store *s)
{
    int64_t left = deadline_ns(s) - clock_monotonic_ns();

    if (!s->told_waiting && left > TELL_NS)
        left = TELL_NS;
    return left > NS_PER_MS ? (int)(left / NS_PER_MS) : 1;
}

bool dlq_store_wait_goes_on(struct dlq_store *s)
{
    int64_t now = clock_monotonic_ns();

    if (now >= deadline_ns(s))
        return false;
    if (!s->told_waiting && now - s->waiting_since_ns >= TELL_NS) {
        s->told_waiting = true;
        fprintf(s->cfg.notes, "waiting for Kafka at \"%s\", up to %g s (--timeout)\n", s->cfg.brokers,
                timeout_s(s));
    }
    return true;
}

/* Failures that pass: a leader or coordinator that is being elected, a topic so new that not every broker knows it. */
bool dlq_store_passes(rd_kafka_resp_err_t code)
{
    static const rd_kafka_resp_err_t CODES[] = {
        RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN,
        RD_KAFKA_RESP_ERR__TRANSPORT,
        RD_KAFKA_RESP_ERR__TIMED_OUT,
        RD_KAFKA_RESP_ERR__WAIT_COORD,
        RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE,
        RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
        RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART,
        RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION,
        RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC,
        RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
        RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE,
        RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS,
        RD_KAFKA_RESP_ERR_NOT_COORDINATOR,
    };
    for (size_t i = 0; i < ARRAY_LEN(CODES); i++)
        if (code == CODES[i])
            return true;
    return false;
}

bool dlq_store_ask_again(struct dlq_store *s, rd_kafka_resp_err_t code)
{
    if (!dlq_store_passes(code) || !dlq_store_wait_goes_on(s))
        return false;
    poll(NULL, 0, RETRY_MS);
    return true;
}

int dlq_store_gave_up(const struct dlq_store *s, struct err *err)
{
    if (clock_monotonic_ns() >= deadline_ns(s))
        err_prefix(err, "nothing within %g s (--timeout): ", timeout_s(s));
    return -1;
}
