/*
 * Whether this relay may work: a lease on the cursor row, kept by the database's clock, seen through ours.
 *
 * The database sets lease_until = its own now + ttl while it executes the statement, which is after we sent
 * it. So counting ttl from the moment of *sending* on our monotonic clock ends no later than the database's
 * lease: no two relays believe they hold it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct lease {
    int64_t ttl_ns;
    int64_t epoch;    /* ours while held; every write names it */
    int64_t sent_ns;  /* when the statement that is under way was sent */
    int64_t until_ns; /* nothing is published after this, on our clock */
    bool held;        /* false: standby */
    bool idle; /* it lasts as long as our stream does, but nothing may be published before it is renewed */
};

void lease_init(struct lease *l, int64_t ttl_ns);
void lease_asked(struct lease *l, int64_t now); /* a statement that takes or renews it goes out now */
void lease_taken(struct lease *l, int64_t epoch);
/* The statement that goes out lets it last by the stream: from here on it may be taken as soon as the stream ends. */
void lease_idles(struct lease *l);
void lease_renewed(struct lease *l, bool idle);
void lease_lost(struct lease *l);
bool lease_valid(const struct lease *l, int64_t now);
/* So long Kafka has to acknowledge what it was handed: in the last eighth of a lease nothing is handed over. */
int64_t lease_patience_ns(const struct lease *l);
bool lease_lets_publish(const struct lease *l, int64_t now);
/* Its time is over and nobody has said yet whether another relay has it now; CLOCK_NEVER: it is not held, or lasts by the stream. */
int64_t lease_over_at(const struct lease *l);
int64_t
lease_renew_at(const struct lease *l); /* a third of its time after it was last renewed; CLOCK_NEVER: idle */
int64_t lease_renew_by(const struct lease *l); /* two thirds: so long may it wait for company */
