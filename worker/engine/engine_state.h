/* What the engine's own files share: the engine, its streams and groups. Nobody outside worker/engine/ includes it. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/clock.h"
#include "worker/engine/breaker.h"
#include "worker/engine/budget.h"
#include "worker/engine/delivery.h"
#include "worker/engine/endpoints.h"
#include "worker/engine/engine.h"
#include "worker/engine/heap.h"
#include "worker/engine/lanes.h"
#include "worker/engine/limiter.h"
#include "worker/engine/list.h"
#include "worker/engine/memory.h"
#include "worker/engine/offsets.h"
#include "worker/engine/pace.h"
#include "worker/engine/parked.h"

/* One partition of a source topic or of the replay topic. */
struct stream {
    int number;
    enum stream_kind kind;
    struct group *group;
    struct link all;        /* in engine.streams_held */
    struct link in_group;   /* in group.streams */
    struct list deliveries; /* of its records that are not complete, also those dropped by a revoke */
    struct offsets offsets;
    int held; /* records taken in and not complete */
    int64_t held_bytes;
    int active;  /* deliveries that a drain waits for: in flight, burying, parking */
    int stalled; /* deliveries that wait for room among the parked keys */
    int firsts; /* deliveries that are ready for their first request, or in it, their endpoint not in doubt */
    bool revoking, drained;
    bool paused;     /* what the door was told last */
    bool full;       /* a limit of its own was reached, and half of that limit is not free */
    bool commit_out; /* a COMMIT is not answered yet */
    bool commit_due, drained_due;
    int64_t commit_after_ns; /* not before */
    struct heap_node unsafe; /* in engine.unsafe by the first completion that no acknowledged commit covers */
    int64_t
        unsafe_after_commit_ns; /* the first completion that the commit under way does not cover; 0: none */
    int drain_commits_failed;
    struct timer commit_timer, drain_timer, keep_timer;
    struct link action; /* in engine.stream_actions while there is something to tell about it */
};

/* One partition number: the streams of the source topics and of the replay topic that share keys. */
struct group {
    int number;
    struct link link;
    bool open;           /* the parked keys are loaded: deliveries may go */
    bool closed;         /* it lost a stream: opened again only as a new group */
    struct list streams; /* those held, by in_group link */
    struct parked parked;
    int64_t epoch;       /* of what is written; until it is open the highest that was read */
    int freed;           /* until it is open: those in `parked` that are free */
    int parked_reserved; /* keys on their way into `parked`: their dead letter is being written */
    struct list stalled; /* deliveries that wait for room in it, by queue link */
};

/* What a ready delivery waits among. Those of an endpoint in doubt go by themselves, in turn with those of other such endpoints. */
enum waiting {
    WAITING_FIRST, /* for its first request */
    WAITING_AGAIN, /* for a repetition */
    WAITING_DOUBTFUL_FIRST,
    WAITING_DOUBTFUL_AGAIN,
    WAITING_KINDS
};
#define WAITING_IN_BINS 2 /* the kinds that have bins */

/* Ready deliveries that may go in one request. */
struct bin {
    struct heap ready;   /* by age: the first one goes first */
    struct list by_time; /* the same, by queue link: which has waited longest */
    int64_t bytes;       /* of their requests */
};

/* A PARK action that is not answered. */
struct park_slot {
    uint64_t token; /* 0: free */
    struct parked_key *key;
    size_t next_free;
};

struct engine {
    struct engine_config cfg;
    int64_t now;
    int64_t active_ns; /* time so far in which the destination was neither cut off nor pausing */
    uint64_t random;
    uint64_t hash_seed;
    uint64_t sequence; /* of deliveries, in order of arrival */
    struct endpoints endpoints;
    int64_t paused_until_ns;
    int refusals; /* rounds of requests in a row that the API refused without saying for how long; a success ends it */
    int64_t refused_ns;      /* the last of them */
    bool on_hold;            /* the operator paused it */
    int64_t breaker_episode; /* grows when the breaker closes: probes of an earlier one are forgotten */
    uint64_t probe_round
        [2]; /* grows with each round of probes of all endpoints; and of all that are apart from the others */
    bool probe_apart;       /* it is their turn */
    int firsts_sent;        /* first requests since another one, FIRSTS_BETWEEN at most */
    bool doubtful_sent;     /* that other one was of an endpoint in doubt */
    bool doubtful_again;    /* the last one of an endpoint in doubt was a repetition */
    int64_t turn[2];        /* of the last one that was sent of those in doubt: [repetition] */
    uint64_t served;        /* answers of an API that works */
    int doubtful_under_way; /* requests to endpoints in doubt */

    struct stream *streams[ENGINE_STREAMS_MAX];
    struct list streams_held;
    bool bytes_full; /* total_bytes was reached and half of it is not free again */
    bool plenty;     /* enough is ready to go, and half of it has not gone yet */
    bool starved;    /* something is paused, and nothing in hand is on its way that could end it */
    int streams_paused;
    struct list groups;
    struct lanes lanes;
    struct pool deliveries;
    struct breaker breaker;
    struct limiter limiter;
    struct pace pace;
    struct budget budget;

    struct heap timers;
    struct heap ready[WAITING_KINDS]; /* deliveries that are due, by age; those in doubt by turn */
    struct bin bins[WAITING_IN_BINS][ENGINE_BATCH_KINDS]; /* the batchable ones: [waiting][kind modulo] */
    int64_t riders;                                       /* deliveries in flight in the request of another */
    struct heap unsafe[STREAM_KINDS]; /* streams by kind, each of which has one consumer: see uncommitted.c */
    struct list held_back[STREAM_KINDS]; /* deliveries that are ready, but wait for a commit, by queue link */
    struct list turns;                   /* first in their lane, to be looked at, by queue link */
    struct list cancels, releases, burials; /* deliveries, by queue link */
    struct list stream_actions;
    struct list park_queue; /* parked_key */
    struct park_slot *park_slots;
    size_t park_slot_count, park_free; /* park_free: index + 1 of the first free one, 0: none */
    uint64_t park_generation;

    int64_t in_step[STEP_COUNT];
    int64_t firsts;                          /* the sum of the streams' */
    struct engine_counts counts;             /* the sums; what is counted now is filled in by engine_counts */
    struct buf value;                        /* of the last PARK */
    char metadata[OFFSET_MAP_CHARS_MAX + 1]; /* of the last COMMIT */
};

/* ---- time and timers: engine.c ---- */
void engine_begin(struct engine *e, int64_t now); /* each fact begins so */
void timer_set(struct engine *e, struct timer *timer, int64_t at_ns);
void timer_stop(struct engine *e, struct timer *timer);

/* ---- stream.c: windows, commits, drain ---- */
struct stream *stream_new(struct engine *e, int number, enum stream_kind kind, struct group *group);
void stream_free(struct engine *e, struct stream *s);
bool stream_takes(const struct engine *e, const struct stream *s);
/* What it holds has changed: pause or resume intake. */
void stream_intake(struct engine *e, struct stream *s);
/* There may be something to commit, or its drain may be over. */
void stream_progress(struct engine *e, struct stream *s);
void stream_hold(struct engine *e, struct stream *s, size_t bytes);
void stream_unhold(struct engine *e, struct stream *s, size_t bytes);
void stream_revoke(struct engine *e, struct stream *s);
/* Its time is over: what is still in flight is given up. */
void stream_drain_over(struct engine *e, struct stream *s);
void stream_committed(struct engine *e, struct stream *s, bool ok);
/* Of a replay stream: commit where it is, so that Kafka does not forget it; and again in some hours. */
void stream_keep(struct engine *e, struct stream *s);
/* The next COMMIT, PAUSE, RESUME or DRAINED of any stream. */
bool stream_next_action(struct engine *e, struct action *ret_action);

/* ---- uncommitted.c: what a crash would repeat ---- */
void uncommitted_completed(struct engine *e, struct stream *s);
void uncommitted_commit_made(struct stream *s);
void uncommitted_commit_safe(struct engine *e, struct stream *s);
void uncommitted_forget(struct engine *e, struct stream *s);
/* May d not go now? Then it comes back to the ready ones with the commit. */
bool uncommitted_holds_back(struct engine *e, struct delivery *d);
bool uncommitted_waits(const struct engine *e,
                       const struct delivery *d); /* the same, and it stays where it is */

/* ---- dispatch.c: which request goes next ---- */
void dispatch_ready(struct engine *e, struct delivery *d);
void dispatch_forget(struct engine *e, struct delivery *d); /* no effect when it is not ready */
/* The next SEND; what it names is in flight. false: none may go now. */
bool dispatch_next(struct engine *e, struct action *ret_action);
/* The first that is ready and may go; those that wait for a commit are put aside until it comes. */
struct heap_node *dispatch_first(struct engine *e, struct heap *ready);
int64_t dispatch_requests(const struct engine *e);      /* under way */
int64_t dispatch_waiting_again(const struct engine *e); /* repetitions that are due */
int64_t dispatch_firsts(const struct engine *e);        /* first requests that are due and may go */
void dispatch_breaker_closed(struct engine *e);
bool dispatch_still_sends(const struct engine *e, const struct delivery *d);
int dispatch_limit(const struct engine *e); /* requests at once */
bool dispatch_over_budget(const struct engine *e);
/* The API wants no request for so long; the longest wish counts. */
void dispatch_pause(struct engine *e, int64_t wait_ns);
int64_t dispatch_due(const struct engine *e); /* when time alone would let one go; CLOCK_NEVER */

/* ---- doubt.c: endpoints that fail while others are served ---- */
/* What an answer said of its endpoint; NO_ANSWER: nothing, so that its probe was none either. */
void doubt_heard(struct engine *e, struct endpoint *endpoint, enum breaker_result result, bool probe);
void doubt_breaker_closed(struct engine *e);
bool doubt_is_full(const struct engine *e);                     /* no more may go to endpoints in doubt now */
int64_t doubt_turn(struct engine *e, const struct delivery *d); /* when it begins to wait */

/* ---- batch.c: requests of several events ---- */
bool batch_takes(const struct engine *e, const struct delivery *d); /* its request is one of several events */
bool batch_waits(const struct engine *e, const struct delivery *d); /* in a bin, when it is ready */
void batch_init(struct engine *e);
void batch_done(struct engine *e);
void batch_put(struct engine *e, struct delivery *d);
void batch_take_out(struct engine *e, struct delivery *d); /* of its bin; no effect when it is in none */
int64_t batch_due(const struct engine *e,
                  const struct bin *bin); /* when its next request may go; CLOCK_NEVER: empty */
/* All that goes with d is in flight; NULL: d goes on its own. */
struct batch *batch_gather(struct engine *e, struct delivery *d);
void batch_left(struct engine *e, const struct delivery *d); /* it is in flight no more, its request is */
void batch_cancelled(struct delivery *d);                    /* its CANCEL is handed out */

/* ---- answer.c: what the end of an attempt means for its event ---- */
enum step answer_step(struct engine *e, struct delivery *d, const struct outcome *out);
/* An attempt of it may have been executed without our knowing. */
void answer_doubt(struct engine *e, struct delivery *d);
/* The members that are still wanted go on to their next steps. */
void answer_batch(struct engine *e, struct batch *b, const struct outcome *whole,
                  const struct outcome *items);

/* ---- parking.c: parked keys and their writes ---- */
struct group *group_find(struct engine *e, int number); /* NULL: not held */
struct group *group_get(struct engine *e, int number);
void group_free(struct engine *e, struct group *g);
/* What the parked topic says about a key, before the group opens. -1: unreadable, the key counts as parked. */
int parking_load(struct engine *e, struct group *g, struct slice key, struct slice value, int64_t epoch,
                 struct err *err);
/* All is loaded: this owner's epoch begins, and what an older one has overwritten is written again. */
void parking_open(struct engine *e, struct group *g, int64_t wall_ms);
/* The entry that d must stand behind; NULL: its key is not parked, or d is the replay whose turn it is, or parking is off. */
struct parked_key *parking_blocks(const struct engine *e, const struct delivery *d);
/* A dead letter that will park its key needs room for it first. false: there is none now. */
bool parking_reserve(struct engine *e, struct delivery *d);
void parking_unreserve(struct engine *e, struct delivery *d);
/* Put d's change into its key's state. true: a write is on its way, d waits for it. false: nothing to write. */
bool parking_change(struct engine *e, struct delivery *d);
void parking_written(struct engine *e, uint64_t token, bool ok);
void parking_again(struct engine *e, struct parked_key *key);
/* Let those that wait for room look again, as many as there is room for. */
void parking_wake(struct engine *e, struct group *g);
bool parking_next_action(struct engine *e, struct action *ret_action);
