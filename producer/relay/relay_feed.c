/* Turns the stream and its guard: one is told what the core wants, the other what the disk can bear. */
#include "producer/relay/relay_feed.h"

#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "producer/relay/relay.h"
#include "producer/relay/relay_guard.h"
#include "producer/relay/relay_wal.h"

#define COMPLAINT_NS                                                                                         \
    (60 * NS_PER_S) /* between two lines that say the same about a stream that cannot be had */

struct relay_feed {
    const struct relay_options *opt;
    struct relay_wal *wal;
    struct relay_guard *guard;
    bool waiting_for_kafka; /* the guard has dropped the slot */
    int64_t streamed;       /* as counted when the guard asked last: has anything come since? */
    uint64_t received_lsn;  /* and has the log moved, by rows that a publication leaves out, perhaps? */
    bool idle;
    char complaint[ERR_MESSAGE_BYTES];
    int64_t complain_at;
};

struct relay_feed *relay_feed_new(const struct relay_options *opt, const struct relay_identity *outbox,
                                  struct err *err)
{
    struct relay_feed *f = calloc(1, sizeof(*f));

    if (!f) {
        err_set(err, ERR_TEMPORARY, "no memory for the stream");
        return NULL;
    }
    f->opt = opt;
    if (opt->source == RELAY_KIND_TABLE)
        return f;
    f->wal = relay_wal_new(opt, outbox, err);
    f->guard = f->wal ? relay_guard_new(opt, outbox, err) : NULL;
    if (f->guard)
        return f;
    relay_feed_free(f);
    return NULL;
}

void relay_feed_free(struct relay_feed *f)
{
    if (!f)
        return;
    relay_guard_free(f->guard);
    relay_wal_free(f->wal);
    free(f);
}

void relay_feed_hang_up(struct relay_feed *f)
{
    if (f->guard)
        relay_guard_hang_up(f->guard);
}

/* A stream that cannot be had is asked for every few seconds: the same words once a minute are enough. */
static void complain(struct relay_feed *f, int64_t now, const struct err *why)
{
    if (strcmp(f->complaint, why->message) == 0 && now < f->complain_at)
        return;
    snprintf(f->complaint, sizeof(f->complaint), "%s", why->message);
    f->complain_at = now + COMPLAINT_NS;
    LOG_AT(why->kind == ERR_PERMANENT ? LOG_ERROR : LOG_WARN, "no stream", LOG_STR("why", why->message),
           LOG_STR("then", f->opt->source == RELAY_KIND_WAL ? "the outbox is read as a table"
                                                            : "no event is published"));
}

static void lose_stream(struct relay_feed *f, struct relay_core *c, int64_t now, const struct err *why)
{
    if (why)
        complain(f, now, why);
    relay_wal_stop(f->wal);
    relay_core_stream_down(c, now);
}

static void start(struct relay_feed *f, struct relay_core *c, int64_t now, uint64_t lsn, bool kafka_up)
{
    struct err why = {0};

    f->waiting_for_kafka = f->waiting_for_kafka && !kafka_up;
    if (f->waiting_for_kafka || relay_guard_dropping(f->guard))
        relay_core_stream_down(c, now);
    else if (relay_wal_start(f->wal, lsn, &why) < 0)
        lose_stream(f, c, clock_monotonic_ns(), &why);
}

void relay_feed_shard(struct relay_feed *f, const struct relay_shard *shard)
{
    relay_wal_shard(f->wal, shard);
    relay_guard_shard(f->guard, shard);
}

void relay_feed_act(struct relay_feed *f, struct relay_core *c, int64_t now, const struct relay_action *a,
                    bool kafka_up)
{
    struct err why = {0};

    ENSURE(f->wal);
    if (a->kind == RELAY_STREAM)
        start(f, c, now, a->lsn, kafka_up);
    else if (a->kind == RELAY_UNSTREAM)
        relay_wal_stop(f->wal);
    else if (relay_wal_status(f->wal, a->lsn, &why) < 0)
        lose_stream(f, c, now, &why);
}

static void turn_guard(struct relay_feed *f, struct relay_core *c, int64_t now)
{
    enum guard_verdict verdict = relay_guard_turn(f->guard, now, f->idle, relay_core_leads(c, now));
    struct err why = {0};

    if (verdict != GUARD_QUIET) {
        f->streamed = relay_core_counts(c).streamed;
        f->received_lsn = relay_core_counts(c).received_lsn;
    }
    if (verdict == GUARD_TOLD && relay_guard_asked_at(f->guard) > relay_wal_began_at(f->wal) &&
        relay_wal_believe(f->wal, relay_guard_slot(f->guard), &why) < 0)
        lose_stream(f, c, now, &why);
    if (verdict != GUARD_OVER)
        return;
    f->waiting_for_kafka = true;
    relay_wal_slot_goes(f->wal);
    if (relay_wal_fd(f->wal) >= 0)
        lose_stream(f, c, now, NULL);
    relay_guard_drop(f->guard);
}

void relay_feed_turn(struct relay_feed *f, struct relay_core *c, int64_t now, bool database_up)
{
    struct relay_counts n;
    struct err why = {0};

    if (!f->wal)
        return;
    if (relay_wal_hear(f->wal, c, now, &why) < 0)
        lose_stream(f, c, now, &why);
    n = relay_core_counts(c);
    f->idle = n.streaming && n.held == 0 && n.streamed == f->streamed &&
              (f->opt->source == RELAY_KIND_MESSAGE || n.received_lsn == f->received_lsn);
    if (database_up && n.role == RELAY_ACTIVE)
        turn_guard(f, c, now);
}

struct pollfd relay_feed_poll(const struct relay_feed *f, const struct relay_core *c, int64_t now)
{
    struct pollfd fd = {-1, 0, 0};

    if (!f->wal)
        return fd;
    if (relay_wal_wants_read(f->wal, c, now))
        fd.events |= POLLIN;
    if (relay_wal_wants_write(f->wal))
        fd.events |= POLLOUT;
    fd.fd =
        fd.events ? relay_wal_fd(f->wal) : -1; /* an end of the connection would wake it without a pause */
    return fd;
}

int64_t relay_feed_tick(const struct relay_feed *f, const struct relay_core *c, int64_t now)
{
    int64_t stream, guard = CLOCK_NEVER;

    if (!f->wal)
        return CLOCK_NEVER;
    stream = relay_wal_tick(f->wal, c, now);
    if (relay_core_counts(c).role == RELAY_ACTIVE)
        guard = relay_guard_tick(f->guard);
    return guard < stream ? guard : stream;
}

void relay_feed_stats(struct relay_feed *f, struct stats *s, const struct relay_counts *n)
{
    struct relay_wal_news news;
    const struct slot *slot;

    if (!f->wal)
        return;
    news = relay_wal_news(f->wal);
    slot = relay_guard_slot(f->guard);
    stats_set(s, RELAY_STAT_STREAMING, n->streaming);
    stats_set(s, RELAY_STAT_STREAMED, n->streamed);
    stats_set(s, RELAY_STAT_STREAM_SKIPPED, n->skipped);
    stats_set(s, RELAY_STAT_STREAMS, n->streams);
    stats_set(s, RELAY_STAT_STREAMS_LOST, n->streams_lost);
    stats_set(s, RELAY_STAT_STREAM_STATUSES, n->statuses);
    stats_set(s, RELAY_STAT_STREAM_UNCONFIRMED,
              n->received_lsn > n->confirmed_lsn ? (int64_t)(n->received_lsn - n->confirmed_lsn) : 0);
    stats_set(s, RELAY_STAT_SLOT_RETAINED, slot->ours ? slot->retained_bytes : 0);
    stats_add(s, RELAY_STAT_SLOTS_MADE, news.slots_made);
    stats_add(s, RELAY_STAT_SLOTS_LOST, news.slots_lost);
    stats_add(s, RELAY_STAT_WALSENDERS_ENDED, news.walsenders_ended);
}
