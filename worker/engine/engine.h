/*
 * The delivery engine: told facts and the time, it answers with actions. No I/O, no clock, no foreign library.
 *
 *      facts in                                            actions out (engine_next until it returns false)
 *   engine_assign        a stream is ours        ┌──────┐   SEND     start this HTTP request
 *   engine_parked_key    a key was parked        │      │   BURY     produce this dead letter
 *   engine_record        a record arrived        │engine│   PARK     produce this state of a parked key
 *   engine_response      an attempt ended   ───▶ │      │──▶ COMMIT  commit this offset and map
 *   engine_batch_response  one of several events │      │
 *   engine_buried        a dead letter is safe   │      │   PAUSE    stop fetching a stream; RESUME
 *   engine_park_written  a parked state is safe  │      │   CANCEL   give up this request, its answer will not count
 *   engine_committed     a commit ended          │      │   RELEASE  the record is not needed any more
 *   engine_revoke        a stream will go        └──────┘   DRAINED  a revoked stream has nothing left in flight
 *   engine_lost          a stream is gone
 *   engine_tick          time has passed
 *
 * One engine is one destination in one process. Single-threaded: all calls from the worker's loop.
 * What an event goes through (delivery.c; a step is moved only by the engine):
 *
 *   WAITING ──▶ READY ──▶ IN_FLIGHT ──▶ done ──▶ (offset complete, RELEASE)
 *     ▲  its key's turn │        │ retry: BACKOFF ──▶ READY
 *     │                 │        └ poison or attempts spent: BURYING ──▶ PARKING ──▶ done
 *     └ behind another  └ key is parked: BURYING (reason "parked-behind")
 *
 * Words: a *stream* is one partition of a source topic or of the replay topic. A *group* is the partition number: the source
 * streams, of as many topics as there are, and the replay stream of one number share their keys: a key is the same thing in all of them, so
 * that at most one event of it is on its way and its dead letters hold up those of every topic. Order holds within a topic.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/compiler.h"
#include "common/event.h"
#include "worker/engine/verdict.h"

struct engine;
struct delivery;

/* ---- birth ---------------------------------------------------------------------------------------------------------- */

enum engine_order { ENGINE_ORDER_KEY, ENGINE_ORDER_PARTITION, ENGINE_ORDER_NONE };
enum engine_on_dead_letter { ENGINE_PARK, ENGINE_CONTINUE };
enum engine_adaptive { ENGINE_ADAPTIVE_OFF, ENGINE_ADAPTIVE_SHADOW, ENGINE_ADAPTIVE_ON };

#define ENGINE_REPLAYS_BEYOND 8 /* events of a replay stream that total_bytes does not keep out */

/* All times in ns. Every bound is > 0. engine_config_default gives the documented defaults. */
struct engine_config {
    enum engine_order order;
    enum engine_on_dead_letter on_dead_letter;
    int in_flight_max; /* requests at once, the whole destination */
    /* A limit below in_flight_max that follows the API's latency (limiter.h), not below in_flight_min; SHADOW: only told */
    enum engine_adaptive adaptive;
    int in_flight_min;
    int64_t limit_window_ns;
    int64_t rate_requests, rate_bytes; /* a second, the whole destination; 0: no ceiling */
    /* one request for so many events (1: never more) of so many request_bytes, once full or when the first has waited so long */
    int batch_max_events;
    int64_t batch_max_bytes, batch_linger_ns;
    /* repetitions: this share of all requests, and so many a second; the probes of the breaker always may (budget.h) */
    double retry_share;
    int retry_min;
    /* per stream: records taken in and not complete; intake pauses at either */
    int window_events, window_bytes;
    int total_bytes; /* over all streams; beyond it ENGINE_REPLAYS_BEYOND events of each replay stream: they may free a parked key */
    /* intake of all streams pauses when so many first requests are ready, or as many as in_flight_max requests take where that is more */
    int ready_events;
    int attempts_max; /* counted attempts before the dead letter */
    /* after so many an event that keeps its stream's window full is dead-lettered, when all but its key's is done there */
    int blocking_attempts;
    int blocking_successes; /* and when its endpoint has served so many others since its first attempt */
    /* since the first attempt, the time with the breaker open not counted; 0: no limit */
    int64_t retry_age_max_ns;
    /* full jitter: uniform in [0, min(cap, base * 2^(n-1))], floor 1 ms */
    int64_t backoff_base_ns, backoff_cap_ns;
    int64_t retry_after_cap_ns; /* a longer wait that the API asks for is cut to this */
    int breaker_failures;       /* consecutive systemic failures that open the breaker */
    double breaker_share;       /* or this share of failures ... */
    int breaker_share_min;      /* ... among at least so many answers ... */
    int64_t breaker_window_ns;  /* ... within this window */
    /* or this share of answers slower than breaker_slow_ns (0: none is), failures included */
    int64_t breaker_slow_ns;
    double breaker_slow_share;
    /* first pause before a probe, doubling (with jitter) up to the cap */
    int64_t breaker_open_ns, breaker_open_cap_ns;
    /* COMMIT at most this often per stream (100 ms), and at once when drained; while one's progress is not acknowledged for
       twice as long, no stream of its kind sends anything. A replay stream's also without progress: after engine_assign, then each 6 h. */
    int64_t commit_interval_ns;
    int64_t drain_ns; /* after engine_revoke: CANCEL what is still in flight after this */
    /* per group; beyond it a dead-lettered key is not parked but its stream pauses, loudly */
    int parked_keys_max;
    /* the target's overrides before the common table; borrowed; NULL: none */
    const struct verdict_rule *rules;
    size_t rule_count;
    uint64_t seed; /* of the jitter */
};
struct engine_config engine_config_default(void);

/* NULL: PERMANENT (bad bound) or no memory */
struct engine *engine_new(const struct engine_config *cfg, struct err *err);
/* does not hand out RELEASE: drain or engine_lost first, or the records leak */
void engine_free(struct engine *e);

/* ---- streams -------------------------------------------------------------------------------------------------------- */

enum stream_kind { STREAM_SOURCE, STREAM_REPLAY, STREAM_KINDS };

/*
 * The stream is ours from now on. stream: any number the door likes, 0 … ENGINE_STREAMS_MAX-1, not in use. committed: the offset
 * that was committed, or -1 when there is none. metadata: the commit's string (may be NULL); what cannot be read means redeliver
 * from `committed`, never skip, and is told by the return value false. Nothing of the group is dispatched before engine_open(group).
 */
#define ENGINE_STREAMS_MAX 4096
bool engine_assign(struct engine *e, int64_t now, int stream, enum stream_kind kind, int group,
                   int64_t committed, const char *metadata);
/*
 * Before engine_open: the parked topic holds this state for the key; called for its records in their order. value NULL: released. epoch: what
 * the record says, 0: nothing, it is believed. A state of an older epoch than the one before it is of a worker that had lost the partition and
 * did not know: it is not believed, and the state before it is written again. -1: unreadable value: the key counts as parked with an unknown
 * set, which only `tandem-dlq` can end.
 */
int engine_parked_key(struct engine *e, int group, struct slice key, struct slice value, int64_t epoch,
                      struct err *err);
/*
 * The parked topic has been read to its end for this group: dispatch may begin. wall_ms: the time by the clock on the wall when the partition
 * was given to us, before its parked topic was read; what is written from now on says it as its epoch, or the highest that was read where
 * that is higher.
 */
void engine_open(struct engine *e, int64_t now, int group, int64_t wall_ms);
/*
 * The stream will be taken away: nothing more of it is dispatched; what is in flight may end within drain_ns; then DRAINED comes,
 * after a last COMMIT. Records not in flight are RELEASEd at once. The door gives the partition up after DRAINED and calls engine_lost.
 */
void engine_revoke(struct engine *e, int64_t now, int stream);
/*
 * The stream is gone (after DRAINED, or suddenly): forget it; RELEASE for all it held, CANCEL for what is in flight; never a COMMIT.
 * The streams of a group come and go together: lose all of them before one is assigned again. Do not pass on the answer to a COMMIT of a
 * lost stream.
 */
void engine_lost(struct engine *e, int64_t now, int stream);

/* ---- records -------------------------------------------------------------------------------------------------------- */

struct engine_record {
    int stream;
    int64_t offset;
    int32_t leader_epoch;  /* -1: unknown; handed back in COMMIT */
    struct slice key;      /* data NULL: no key: no order, never parked */
    struct slice event_id; /* ce_id (or the door's "topic/partition/offset" when it has none) */
    size_t bytes;          /* what it holds in memory */
    size_t request_bytes;  /* about what its request sends: for rate_bytes */
    /* which endpoint of the API its request goes to, any number: one that is down is no proof against events of another */
    uint64_t route;
    /* 0: its request is of it alone, in the old way; else any number: it may go with others of the same, which have its route */
    uint64_t batch;
    /* the door's own (rd_kafka_message_t *): comes back in RELEASE, exactly once */
    void *ref;
    /* not NULL: it can never be a request: dead-lettered in its key's turn with this reason's verdict */
    const char *poison;
    enum reason poison_reason;
    /* by rule not for this destination: complete in its key's turn without a request */
    bool skip;
    /* of a replay record: how often it has been replayed, 0 for a source record */
    int replay_count;
};
#define ENGINE_BATCH_KINDS 8 /* more at once go in smaller batches than they could */
/* Offsets rise within a stream; gaps (transaction markers, compaction) count as complete. A record known complete by the map is
 * RELEASEd without delivery. slices are borrowed until RELEASE. Always accepted; after PAUSE at most one fetch may still come. */
void engine_record(struct engine *e, int64_t now, const struct engine_record *rec);

/* ---- answers -------------------------------------------------------------------------------------------------------- */

/* How one attempt ended, as the door saw it. */
struct outcome {
    enum transport transport; /* TRANSPORT_OK: status is valid */
    int status;               /* HTTP status */
    /* -1: none; already a duration (backoff.h parses the header); of a 429 or 503 the destination's, whatever the verdict */
    int64_t retry_after_ns;
    /* > 0: the answer says that nothing is left of a quota for so long (quota.h), whatever its status */
    int64_t quota_wait_ns;
    int64_t setup_ns; /* until the request could go out: what a new connection takes is no sign of load */
    bool sent;        /* the request may have reached the API (ambiguous when it then failed) */
    bool
        resent; /* it went out more than once, and this is the end of the last: ambiguous, whatever it says */
    /* -1: use the rules; otherwise the target has looked into the answer: enum verdict */
    int verdict;
    enum reason reason; /* of its VERDICT_POISON; REASON_NONE: rejected */
};
/*
 * d: from SEND; after this call the door must not use it unless another action names it. A cancelled delivery needs no response, and
 * after its CANCEL was handed out none is allowed.
 */
void engine_response(struct engine *e, int64_t now, struct delivery *d, const struct outcome *out);
/*
 * May d, which has waited since its SEND for something else (a token), go out now? No: the destination asked for a pause meanwhile, is on
 * hold, or its breaker is not closed and d is not the probe. Then end it with TRANSPORT_CANCELLED: it comes again when it may.
 */
bool engine_still_sends(struct engine *e, int64_t now, const struct delivery *d);
/*
 * A request of several events, at most one of a key. It lives from its SEND until engine_batch_response, or until each member was named by
 * a CANCEL: a stream that goes takes its own events out, and the others still get their answer. The door reads it, the engine writes.
 */
struct batch {
    int count;                  /* members when it was sent, in the order of the request; never 0 */
    int waiting;                /* that were not taken out by a CANCEL */
    int live;                   /* the engine's own: of these, what its stream still wants */
    struct delivery *members[]; /* NULL: taken out */
};
/*
 * The end of a batch's request. items: what the API said of each member, by its place (those of members taken out are not looked at), or
 * NULL when it spoke of the request as a whole. A refusal of a whole batch dead-letters nobody: it comes again in halves.
 */
void engine_batch_response(struct engine *e, int64_t now, struct batch *b, const struct outcome *whole,
                           const struct outcome *items);
/*
 * The dead letter of d is acknowledged (ok) or failed (asked for again after a backoff; d is not complete). Exactly once for each BURY,
 * also when the stream was lost or drained meanwhile: d lives until then, though its record is RELEASEd.
 */
void engine_buried(struct engine *e, int64_t now, struct delivery *d, bool ok);
/* The parked state named by the PARK action with this token is acknowledged, or failed (asked for again). */
void engine_park_written(struct engine *e, int64_t now, uint64_t token, bool ok);
/* A COMMIT ended; after a failure it is asked for again with the then newest state. */
void engine_committed(struct engine *e, int64_t now, int stream, bool ok);

/* ---- the operator --------------------------------------------------------------------------------------------------- */

/* Until told otherwise: AUTO, the rules decide; KEPT_OPEN, nothing is sent, not even a probe; KEPT_CLOSED, failures do not open it. */
enum breaker_override { BREAKER_AUTO, BREAKER_KEPT_OPEN, BREAKER_KEPT_CLOSED };
void engine_breaker(struct engine *e, int64_t now, enum breaker_override override);
/* Nothing more is sent until released; what is in flight ends, records come in until their windows are full, nothing ages. */
void engine_hold(struct engine *e, int64_t now, bool hold);

/* ---- time ----------------------------------------------------------------------------------------------------------- */

/*
 * Let what is due become ready; returns ns until time alone makes something new due, CLOCK_NEVER when nothing is. Call it after the facts,
 * then engine_next until it is false; when that gave an action the same again (a request that went out moves when the next one may);
 * then sleep. now never goes back and is > 0.
 */
int64_t engine_tick(struct engine *e, int64_t now);

/* ---- actions -------------------------------------------------------------------------------------------------------- */

enum action_kind {
    ACTION_SEND,
    ACTION_BURY,
    ACTION_PARK,
    ACTION_COMMIT,
    ACTION_PAUSE,
    ACTION_RESUME,
    ACTION_CANCEL,
    ACTION_RELEASE,
    ACTION_DRAINED
};

#define OFFSET_MAP_CHARS_MAX 4096 /* Kafka's offset.metadata.max.bytes default */

struct action {
    enum action_kind kind;
    struct delivery *d;   /* SEND, BURY, CANCEL */
    struct batch *batch;  /* SEND: not NULL: a request of these, d is the first */
    void *ref;            /* RELEASE */
    int stream;           /* COMMIT, PAUSE, RESUME, DRAINED; also SEND, BURY */
    int group;            /* PARK */
    int64_t offset;       /* COMMIT: the next offset to consume = lowest incomplete */
    int32_t leader_epoch; /* COMMIT */
    /* COMMIT: ASCII, at most OFFSET_MAP_CHARS_MAX, "" allowed; borrowed until the next call */
    const char *metadata;
    struct slice key; /* PARK; borrowed until the next call */
    /* PARK: the new state; data NULL: tombstone, the key is free; borrowed until the next call */
    struct slice value;
    int64_t epoch;  /* PARK: for the record's header */
    uint64_t token; /* PARK: name it in engine_park_written */
};
/* The next thing to do, in order; false: nothing now. */
bool engine_next(struct engine *e, int64_t now, struct action *ret_action);

/* ---- looking -------------------------------------------------------------------------------------------------------- */

/* What the doors need to know of a delivery: for the request, the log line and the dead letter. */
struct delivery_view {
    int stream, group;
    int64_t offset;
    struct slice key, event_id;
    void *ref;
    int attempt;          /* of the request being made, from 1; includes uncounted ones */
    int attempts_counted; /* those that spend attempts_max; survives restarts in the commit metadata */
    int64_t first_attempt_ns, last_attempt_ns; /* engine time; 0: never attempted */
    enum reason reason;                        /* for BURY */
    const char *poison;         /* the record's own text when it was poison from the start; may be NULL */
    int status;                 /* of the last answer, 0: none */
    enum transport transport;   /* of the last attempt */
    bool ambiguous;             /* at least one attempt may have been executed without our knowing */
    struct slice parked_behind; /* event id that parked the key; data NULL: not parked-behind */
    int replay_count;
    void *door; /* whatever delivery_set_door put there: curl handle, last response body */
};
struct delivery_view delivery_view(const struct delivery *d);
void delivery_set_door(struct delivery *d, void *door);

enum breaker_state { BREAKER_CLOSED, BREAKER_OPEN, BREAKER_HALF_OPEN };

/* Countable at any time (G2): nothing is ever nowhere. */
struct engine_counts {
    int64_t held, backing_off, burying; /* records now */
    int64_t in_flight;                  /* requests now */
    int64_t batches, batches_split; /* requests of batchable events; batches that will come again in halves */
    int64_t held_bytes;
    int64_t delivered, duplicate_ok, skipped, retried, throttled, auth_failures, ambiguous, dead_lettered,
        parked_behind;
    int64_t dead_lettered_by[REASON_COUNT];
    int64_t probes, breaker_opened, map_unreadable, commits, commits_failed;
    /* met again after a crash, with the dead letter and the parked state safe: complete without another */
    int64_t already_buried;
    int64_t parked_full; /* records now that wait for room among parked_keys_max */
    int parked_keys, streams;
    enum breaker_state breaker;
    enum breaker_override breaker_override;
    bool on_hold;             /* by engine_hold */
    int64_t breaker_until_ns; /* OPEN: when a probe may go; 0: it is not, or the operator keeps it */
    int64_t
        paused_until_ns; /* the destination asked to wait (Retry-After, RateLimit), or refuses (429); 0: no */
    int limit;           /* requests at once that the adaptive limit allows, or would in shadow mode */
    int64_t over_budget; /* repetitions that are due and wait for the retry budget */
};
struct engine_counts engine_counts(const struct engine *e);
/* The lowest incomplete offset of a stream (what a COMMIT now would carry), -1 when nothing is known yet. */
int64_t engine_position(const struct engine *e, int stream);
/* The offset behind the last record taken in; -1: none yet and nothing committed, or not held. */
int64_t engine_expects(const struct engine *e, int stream);
int engine_held(const struct engine *e,
                int stream); /* records taken in and not complete; 0 when the stream is not held */
/* false: its PAUSE is due, or was told. For a door that takes several records between two looks at the actions. */
bool engine_takes(const struct engine *e, int stream);
