/*
 * tandem-inventory and tandem-crm: the table of contents of the worker.
 *
 *     Kafka ──▶ worker_consume ──▶ worker_record ──▶ ┌────────┐ ──▶ worker_request ──▶ worker_http ──▶ the API
 *     source    group, rebalance   event, request,   │ engine │
 *     replay ─▶ worker_side        poison?           │        │ ──▶ worker_letter ──▶ worker_bury ──▶ Kafka: dlq, parked
 *     parked                                         └────────┘
 *
 * worker_batch.h: several events in one request, where batch_max_events is above 1 (its requests: worker_http_batch.c).
 * auth.h has who we are: what credentials put into a request, how their files are followed, and what no text may show.
 *
 * worker.c turns the loop: facts from the doors into the engine, the engine's actions to the doors. One thread. What it
 * waits for: committed offsets when partitions are assigned (nothing of them is in flight then; with group_protocol = consumer, or when they
 * had to wait for a leader, the others' requests are), and a program of jq, at most jq_cpu_max of its CPU time. No other call in it waits.
 * worker_topics.c looks at the topics once at the start. worker_admin.c serves /metrics and /readyz from copies.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/options.h"
#include "common/stats.h"
#include "worker/auth.h"
#include "worker/engine/engine.h"
#include "worker/targets/target.h"
#include "worker/worker_batch.h"
#include "worker/worker_oneshot.h"
#include "worker/engine/gap.h"
#include "worker/worker_record.h"
#include "worker/worker_sources.h"
#include "worker/worker_start.h"

struct worker_options {
#define OPTION(name, type, ...) OPTION_MEMBER_##type(name)
#define OPTION_GROUP(title)
#include "worker/worker_options.def"
#undef OPTION
#undef OPTION_GROUP
    struct option_pairs kafka;
    _Alignas(max_align_t) char own[TARGET_OPTIONS_BYTES_MAX]; /* the target's own options */
};

/* All of a worker; each part has its own file, and borrows this. */
struct worker {
    const struct target *target;
    struct targeting *targeting; /* the target at work */
    const char *destination;     /* its name, of topics and dead letters */
    struct worker_options opt;
    struct sources sources; /* the option topic, as a list */
    char *dlq_topic, *replay_topic, *parked_topic, *replay_group, *client_id;
    char *member_id;                     /* group.instance.id; empty: none */
    int64_t deleted;                     /* records that retention took before they were delivered, at most */
    struct gap gaps[ENGINE_STREAMS_MAX]; /* by stream: what of that is told */
    struct start start;                  /* where a partition without a committed offset begins */
    int partitions;                      /* of each source topic and of the three others, since the start */
    struct engine *engine;
    struct auth *auth;
    struct stats *stats;
    struct worker_http *http;
    struct worker_bury *bury;
    struct worker_side *side;
    struct worker_consume *consume;
    struct worker_admin *admin;
    struct oneshot *oneshot; /* NULL: it runs until it is stopped */
    bool nothing_to_do;      /* one-shot: there was nothing */
    struct batch_kinds batch_kinds;
    struct event scratch; /* 8 KiB, used within one call only */
    struct err failure;   /* why the loop must end; the first one wins */
};

/* Parse, run until SIGTERM or failure, and return the exit code. */
int worker_main(const struct target *target, int argc, char **argv);

/* What intake goes by; borrows the options. */
static inline struct intake worker_intake(const struct worker *w)
{
    return (struct intake){w->sources.topics[0], w->opt.types, (size_t)w->opt.payload_max};
}
#define WORKER_PARTITIONS_MAX                                                                                \
    (ENGINE_STREAMS_MAX / 2) /* with one source topic; sources_partitions_max: with more */

/* ---- worker_consume*.c: the group's consumer ------------------------------------------------------------------------ */

NODISCARD int worker_consume_check(const struct worker *w, struct err *err);  /* can its settings be? */
struct worker_consume *worker_consume_new(struct worker *w, struct err *err); /* subscribes */
void worker_consume_free(struct worker_consume *c); /* leaves the group; waits up to 5 s; NULL-safe */
/* Feed what has come into the engine, a bounded number; true: there is more. */
bool worker_consume_poll(struct worker_consume *c, int64_t now);
int64_t worker_consume_wait_ns(const struct worker_consume *c,
                               int64_t now); /* so long at most without a poll */
/* Give everything up: drain what is in flight, commit. worker_consume_idle says when that is done. */
void worker_consume_stop(struct worker_consume *c, int64_t now);
bool worker_consume_idle(const struct worker_consume *c);
/* Give everything up at once: nothing more is committed, what is in flight is cancelled. */
void worker_consume_abandon(struct worker_consume *c, int64_t now);
/* The partition numbers held, of every source topic; NULL while they are being taken on or given up. */
const int *worker_consume_held(const struct worker_consume *c, int *ret_count);
/* Actions of the engine. */
void worker_consume_pause(struct worker_consume *c, int stream, bool pause);
void worker_consume_commit(struct worker_consume *c, const struct action *a);
void worker_consume_flush(struct worker_consume *c,
                          int64_t now); /* send the commits of this round as one request */
void worker_consume_drained(struct worker_consume *c, int64_t now, int stream);
/* What /readyz and /metrics want to know; true: ready. */
bool worker_consume_ready(const struct worker_consume *c, struct buf *why);
/* Partitions that the group gave us and that wait, because a member with another list of topics has others of their number. */
int worker_consume_apart(const struct worker_consume *c);
/* Partitions of source topics that the group gave us and that wait, because Kafka cannot be asked about something of their number. */
int worker_consume_waiting(const struct worker_consume *c);
struct consume_wait {
    int number;        /* of the partitions that wait */
    const char *topic; /* whose partition of that number cannot be asked about; lasts as long as the worker */
    const char *error;
};
/* The waiting number of that place in their list; false: there are not so many. */
bool worker_consume_wait(const struct worker_consume *c, int place, struct consume_wait *ret);
struct consume_look {
    const char *topic;
    int partition;
    int64_t position, lag; /* -1: not known yet */
};
/* The held partition of that place in their list, which goes topic by topic; false: there are not so many. */
bool worker_consume_look(const struct worker_consume *c, int place, struct consume_look *ret);
void worker_consume_lag(const struct worker_consume *c, struct buf *metrics);

/* ---- worker_side.c: the second consumer, of parked and replay ------------------------------------------------------- */

NODISCARD int worker_side_check(const struct worker *w, struct err *err); /* can its settings be? */
struct worker_side *worker_side_new(struct worker *w, struct err *err);
void worker_side_free(struct worker_side *s);
bool worker_side_poll(struct worker_side *s, int64_t now);
int64_t worker_side_wait_ns(const struct worker_side *s, int64_t now); /* so long at most without a poll */
/* Where replays and parked keys of these partition numbers stand: puts them into a, which the caller frees also on failure. */
struct asked;
NODISCARD int worker_side_ask(struct worker_side *s, const int *numbers, int count, struct asked *a,
                              struct err *err);
/* Tell the engine of the replay streams of these numbers, all of them in a and known, and start reading. */
void worker_side_assign(struct worker_side *s, int64_t now, const int *numbers, int count, struct asked *a);
void worker_side_unassign(struct worker_side *s, const int *partitions, int count);
void worker_side_pause(struct worker_side *s, int stream, bool pause);
void worker_side_commit(struct worker_side *s, const struct action *a);
void worker_side_flush(struct worker_side *s, int64_t now);
int worker_side_unread(const struct worker_side *s); /* partitions whose parked keys are still being read */

/* ---- worker_http.c: requests ---------------------------------------------------------------------------------------- */

/* Can these options be? kind: the credential that counts. */
NODISCARD int worker_http_check(const struct worker_options *o, enum auth_kind kind, struct err *err);
struct worker_http *worker_http_new(struct worker *w); /* of options that can be */
void worker_http_free(struct worker_http *h);
void worker_http_send(struct worker_http *h, int64_t now, struct delivery *d);
void worker_http_send_batch(struct worker_http *h, int64_t now, struct batch *b);
void worker_http_cancel(struct worker_http *h, struct record *rec); /* no effect when nothing is under way */
void worker_http_turn(struct worker_http *h, int64_t now); /* move bytes; ended requests become facts */
/* The loop's one sleep: until something happens, worker_http_wake, or ns have passed. */
void worker_http_wait(struct worker_http *h, int64_t ns, int extra_fd);
void worker_http_wake(struct worker_http *h); /* from any thread */
const char *
worker_http_trouble(const struct worker_http *h); /* the last failure, in words that may be shown */

/* ---- worker_bury.c: dead letters and parked keys --------------------------------------------------------------------- */

NODISCARD int worker_bury_check(const struct worker *w, struct err *err); /* can its settings be? */
struct worker_bury *worker_bury_new(struct worker *w, struct err *err);
void worker_bury_free(struct worker_bury *b);
void worker_bury_poll(struct worker_bury *b, int64_t now); /* acknowledgements become facts */
void worker_bury_letter(struct worker_bury *b, int64_t now, struct delivery *d);
void worker_bury_park(struct worker_bury *b, int64_t now, const struct action *a);
void worker_bury_forget(struct record *rec); /* the record goes: its acknowledgement will not matter */

/* ---- worker_topics.c -------------------------------------------------------------------------------------------------- */

/*
 * Are the topics there, with equal partition counts? Creates what may be created; sets w->partitions. TEMPORARY: Kafka cannot be
 * asked; PERMANENT: names what is wrong; *ret_missing: a source topic is not there (yet). Blocks for seconds: before the loop only.
 */
NODISCARD int worker_topics_check(struct worker *w, bool *ret_missing, struct err *err);

/* ---- worker_admin.c ---------------------------------------------------------------------------------------------------- */

struct worker_admin *worker_admin_new(struct worker *w, struct err *err);
void worker_admin_free(struct worker_admin *a);
void worker_admin_tick(struct worker_admin *a, int64_t now); /* refresh the copies once a second */
void worker_admin_say(struct worker_admin *a,
                      const char *not_ready); /* before the loop: the reason; NULL: none */
struct stats *worker_stats_new(void);
void worker_stats_answered(struct worker *w, int64_t took_ns); /* a request ended */
void worker_stats_delivered(struct worker *w, const struct record *rec);
