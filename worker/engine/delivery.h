/*
 * One event's life in the engine, from the record to its release.
 *
 *   WAITING ── first in its lane, group open ──▶ TURN ──▶ READY ── dispatch ──▶ IN_FLIGHT ── delivered ──▶ DONE
 *                                                 │         ▲                     │  │          └ replay of a parked key ──▶ PARKING
 *                                                 │         └──── BACKOFF ◀─ retry ┘  │
 *                                                 ├─ skip ──▶ DONE (replay: PARKING)   │ poison, attempts spent
 *                                                 └─ poison record, parked key ──▶ BURYING ◀┘   (of a replay: another of the key comes first)
 *                                                            no room to park ──▶ STALLED ──▶ BURYING
 *   BURYING ── dead letter safe ──▶ PARKING ── parked state safe (or none to write) ──▶ DONE
 *   any but DONE ── stream revoked or lost ──▶ DROPPED (released, its offset stays incomplete)
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "worker/engine/engine.h"
#include "worker/engine/lanes.h"
#include "worker/engine/list.h"
#include "worker/engine/offsets.h"
#include "worker/engine/timers.h"

/* STEP(id, function): each is entered by enter_<function> in delivery.c, which returns the next one, or itself to wait for a fact. */
#define DELIVERY_STEPS(STEP)                                                                                 \
    STEP(WAITING, waiting)                                                                                   \
    STEP(TURN, turn)                                                                                         \
    STEP(READY, ready)                                                                                       \
    STEP(IN_FLIGHT, in_flight)                                                                               \
    STEP(BACKOFF, backoff)                                                                                   \
    STEP(STALLED, stalled)                                                                                   \
    STEP(BURYING, burying)                                                                                   \
    STEP(PARKING, parking)                                                                                   \
    STEP(DONE, done)                                                                                         \
    STEP(DROPPED, dropped)

enum step {
#define STEP(id, function) STEP_##id,
    DELIVERY_STEPS(STEP)
#undef STEP
        STEP_COUNT
};

struct stream;
struct endpoint;

struct delivery {
    struct engine_record rec;
    struct stream *stream; /* NULL: it is complete, or the stream is lost */
    int group;
    enum step step;
    uint64_t sequence;
    uint64_t hash; /* of (group, key) */
    struct lane_place place;
    struct offset_entry entry;
    struct link in_stream; /* in stream.deliveries until it is complete or the stream is lost */
    struct link
        queue; /* in the one list that wants it next: turns, stalled, held_back, burials, a key's waiters, cancels, releases */
    struct heap_node ready;
    int64_t ready_ns; /* READY in a bin: since when */
    struct timer timer;

    bool request_out;    /* SEND was handed out and neither answered nor cancelled */
    bool again;          /* its next request is a repetition: for the retry budget */
    bool was_again;      /* the one under way is */
    struct batch *batch; /* the request that it is in with others; NULL: none */
    int batch_place;     /* there */
    int batch_limit;     /* it goes with so many at most, itself included; 0: as many as configured */
    bool bury_out;       /* BURY was handed out and not answered: the delivery lives until it is */
    bool ref_held;       /* RELEASE was not handed out yet */
    bool probe;          /* this attempt is the breaker's probe */
    int probes;          /* in the breaker's episode `probe_episode` */
    int64_t probe_episode;
    int attempt;               /* requests made */
    struct endpoint *endpoint; /* that its request goes to */
    struct link in_endpoint;   /* in endpoint.deliveries */
    bool first;                /* it is ready for its first request, or in it */
    /* of it: at the last failure, or at the first dispatch; and at the first dispatch */
    uint64_t successes_before, successes_at_first;
    bool failed_before;
    int uncounted; /* throttles and refusals, which have a backoff of their own */
    /* What the API had served when it refused it last (429, 503, 401, 403), and refusals in a row between which it served others */
    int64_t served_at_refusal;
    bool refused, refused_by_auth; /* and with which of these: one says nothing about the other */
    int refused_alone;
    int64_t first_attempt_ns, last_attempt_ns, first_attempt_active_ns;
    int64_t wait_ns; /* BACKOFF: how long */
    enum reason reason;
    const char *poison;
    int status;
    enum transport transport;
    bool reserved; /* holds room for a parked key */
    int bury_failures;
    char *parked_behind; /* own copy */
    size_t parked_behind_len;
    void *door;
};

/* A record that is nobody's yet. The delivery lives until it is released and the door has answered for it. */
struct delivery *delivery_new(struct engine *e, const struct engine_record *rec);
/* Give the record back at once: its stream is not held, or it is complete. */
void delivery_refuse(struct engine *e, struct delivery *d);
/* The key that a lane borrows from a delivery in it. */
struct slice delivery_lane_key(struct lane_place *place);
/* Enter this step, and those that follow from it at once. */
void delivery_go(struct engine *e, struct delivery *d, enum step step);
/*
 * It is refused again and again while others are served: a quota of its own, perhaps, or, by_auth, a customer who is suspended. Its refusals
 * say nothing about the others.
 */
bool delivery_is_refused_alone(const struct delivery *d, bool by_auth);
/* Its timer came. */
void delivery_due(struct engine *e, struct delivery *d);
/* Look at those whose turn may have come. Called at the end of each fact, so that a long chain does not nest. */
void delivery_turns(struct engine *e);
/* Its RELEASE, or the answer that it waited for, is through: gone when nothing holds it any more. */
void delivery_settle(struct engine *e, struct delivery *d);
