/* What a sample API was told, in memory: per order its state, per Idempotency-Key its first answer, and whether order was kept. */
#pragma once

#include "tests/rig/sample_api.h"

#define AUDIT_EVENTS_MAX 20000000 /* a benchmark of minutes; beyond it new events get 507 */
#define AUDIT_VIOLATIONS_MAX 100  /* listed; all are counted */

struct audit;

struct audit_event {
    char id[SAMPLE_EVENT_ID_BYTES];
    uint32_t order; /* index of the order */
    int status;
    int64_t version, arrived_ns;
    uint32_t received; /* how often this key came */
    char method;       /* first letter: P(OST, UT) D(ELETE) */
    char etag[24];
};

struct audit_totals {
    int64_t requests, executed, duplicates, violations, faulted, refused;
};

struct audit *audit_new(void);
void audit_free(struct audit *a); /* NULL-safe */
void audit_reset(struct audit *a);
struct audit_totals *audit_totals(struct audit *a); /* to be counted up by the server */
/* The event with this Idempotency-Key, NULL when it is new. Borrowed until the next audit_execute. */
struct audit_event *audit_find(struct audit *a, const char *event_id);
/* The order, made when it is new; NULL when memory or the limit is reached. Borrowed until the next call. */
struct sample_order *audit_order(struct audit *a, const char *order_id);
/* Record a first execution; before is the order as it was. -1 when the limit is reached. */
NODISCARD int audit_execute(struct audit *a, const char *event_id, const struct sample_call *call,
                            const struct sample_order *before, int status, int64_t arrived_ns);

/* The three reports, appended to out. */
void audit_report(const struct audit *a, struct buf *out);
void audit_report_order(const struct audit *a, const char *order_id, struct buf *out);
void audit_report_ids(const struct audit *a, bool times, struct buf *out);
