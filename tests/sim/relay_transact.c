/*
 * Kafka's transactions: each process's thread that makes the transactional calls, the coordinator that fences, and the topic of cursors.
 *
 * All relays share two transactional.ids. OPEN raises their epochs, one after the other, and aborts what older producers left open, before it
 * reads the position; records, commits and aborts of an older epoch are refused. A commit decides the rows and the record of the position at
 * once; meanwhile rows go to the other producer.
 */
#include <stdlib.h>
#include <string.h>

#include "tests/sim/relay_world.h"

#define MS NS_PER_MS
#define TXN_TIMEOUT_NS (1500 * MS) /* the broker aborts a transaction that is open for so long */

/* ---- the thread ------------------------------------------------------------------------------------------------------------------ */

void transact_reset(struct door *d)
{
    position_done(&d->transact.position);
    d->transact = (struct transact){0};
}

static int64_t call_delay(struct scene *sc)
{
    int64_t delay = scene_delay(sc, MS / 5, 6 * MS);
    if (sc->kafka_back_at > sc->sim->now)
        delay += sc->kafka_back_at - sc->sim->now;
    if (scene_strikes(sc, RFAULT_COMMIT_LATE, 0.2))
        delay += rng_between(&sc->fault_rng[RFAULT_COMMIT_LATE], 0, 1500 * MS);
    return delay;
}

/* Between the two transactional.ids the one that was there before may go on with the second. */
static int64_t open_delay(struct scene *sc)
{
    int64_t delay = call_delay(sc);
    if (scene_strikes(sc, RFAULT_COMMIT_LATE, 0.6))
        delay += rng_between(&sc->fault_rng[RFAULT_COMMIT_LATE], 0, 1500 * MS);
    return delay;
}

static void call(struct scene *sc, struct door *d)
{
    struct transact *t = &d->transact;
    struct call *c = calloc(1, sizeof(*c));
    ENSURE(c != NULL);
    *c = (struct call){.all = sc->all_calls,
                       .door = d->index,
                       .life = d->life,
                       .serial = t->serial,
                       .kind = t->busy,
                       .which = t->ending,
                       .kafka_rules = t->kafka_rules,
                       .position = t->position};
    memcpy(c->producers, t->producers, sizeof(c->producers));
    t->position = (struct position){0};
    sc->all_calls = c;
    t->at_broker = true;
    sim_at(sc->sim, call_delay(sc), (struct happening){.kind = SCENE_CALL, .node = d->index, .what = c});
}

void transact_act(struct scene *sc, struct door *d, const struct relay_action *a)
{
    static const char *const NAMES[] = {"", "OPEN", "COMMIT", "ABORT"};
    struct transact *t = &d->transact;
    enum transact_call kind = a->kind == RELAY_OPEN     ? TRANSACT_OPEN
                              : a->kind == RELAY_COMMIT ? TRANSACT_COMMIT
                                                        : TRANSACT_ABORT;
    if (!d->exactly_once || t->busy != TRANSACT_NONE)
        sim_broken(sc->sim, "contract", "n%d: %s while a transactional call is under way, or without need",
                   d->index, NAMES[kind]);
    if (kind != TRANSACT_OPEN && !t->open)
        sim_broken(sc->sim, "contract", "n%d: %s without an open producer", d->index, NAMES[kind]);
    t->busy = kind;
    t->serial = ++sc->calls;
    t->at_broker = false;
    sim_trace(sc->sim, "n%d: %s", d->index, NAMES[kind]);
    t->kafka_rules = a->authority_kafka;
    if (kind == TRANSACT_COMMIT) {
        position_done(&t->position);
        db_copy_position(a->position, &t->position);
        t->position.epoch = a->epoch;
    }
    for (int i = 0; i < PRODUCERS; i++) /* what is not sent belongs to a transaction that ends here */
        if (kind == TRANSACT_OPEN || (kind == TRANSACT_ABORT && i == t->turn))
            kafka_drop(sc, d, i);
    t->ending = kind == TRANSACT_OPEN ? 0 : t->turn;
    t->turn = kind == TRANSACT_OPEN ? 0 : (t->turn + 1) % PRODUCERS;
    transact_push(sc, d);
}

/* COMMIT and ABORT wait until nothing is on its way and all is reported; a transaction that lost a record can only be aborted. */
void transact_push(struct scene *sc, struct door *d)
{
    struct transact *t = &d->transact;
    if (t->busy == TRANSACT_NONE || t->at_broker)
        return;
    if (t->busy != TRANSACT_OPEN && !kafka_idle(sc, d, t->ending))
        return;
    call(sc, d);
}

/* ---- the broker ------------------------------------------------------------------------------------------------------------------- */

static void decide(struct scene *sc, struct transactional_id *id, bool commits)
{
    uint64_t txn = id->open;

    if (txn == 0)
        return;
    for (int i = 0; i < sc->plan.partitions; i++)
        for (int k = 0; k < sc->topic[i].count; k++) {
            struct record *r = &sc->topic[i].records[k];
            if (r->txn != txn || r->state != RECORD_UNDECIDED)
                continue;
            r->state = commits ? RECORD_COMMITTED : RECORD_ABORTED;
            if (commits)
                sc->db.rows[r->row].stored++;
        }
    id->open = 0;
    sim_trace(sc->sim, "kafka: transaction %llu is %s", (unsigned long long)txn,
              commits ? "committed" : "aborted");
}

bool transact_takes(struct scene *sc, const struct request_to_kafka *rq)
{
    struct transactional_id *id = &sc->coordinator.ids[rq->which];
    if (rq->epoch != id->epoch || rq->txn == 0 || (rq->txn != id->open && rq->txn <= id->last))
        return false;
    if (id->open != rq->txn) {
        id->open = id->last = rq->txn;
        sim_at(sc->sim, TXN_TIMEOUT_NS,
               (struct happening){.kind = SCENE_TXN_TIMEOUT, .number = (int64_t)rq->txn});
    }
    return true;
}

/* The broker aborts it, and its producer is fenced. */
void transact_timeout(struct scene *sc, uint64_t txn)
{
    for (int i = 0; i < PRODUCERS; i++) {
        struct transactional_id *id = &sc->coordinator.ids[i];
        if (id->open != txn)
            continue;
        sim_trace(sc->sim, "kafka: transaction %llu is open for too long", (unsigned long long)txn);
        audit_incident(sc);
        id->epoch++;
        decide(sc, id, false);
        kafka_consume(sc);
    }
}

bool transact_fenced(const struct scene *sc, const struct door *d)
{
    int turn = d->transact.turn;
    return d->transact.producers[turn].epoch != sc->coordinator.ids[turn].epoch;
}

static void read_record(struct scene *sc, struct call *call)
{
    struct coordinator *c = &sc->coordinator;
    call->has_position = c->has_record && call->kafka_rules;
    if (call->has_position)
        db_copy_position(&c->record, &call->position);
}

/* true: that was the last of the two. */
static bool open_next(struct scene *sc, struct call *call)
{
    int which = call->which++;
    struct transactional_id *id = &sc->coordinator.ids[which];
    decide(sc, id, false);
    call->producers[which] = (struct transact_producer){.epoch = ++id->epoch};
    sim_trace(sc->sim, "kafka: n%d has epoch %lld of producer %d", call->door, (long long)id->epoch, which);
    if (call->which < PRODUCERS)
        return false;
    read_record(sc, call);
    return true;
}

static void store_record(struct scene *sc, const struct call *call)
{
    struct coordinator *c = &sc->coordinator;
    if (c->has_record && sc->db.cursor.kafka_rules)
        audit_forgets(sc, &c->record, &call->position, "the position in Kafka");
    position_done(&c->record);
    db_copy_position(&call->position, &c->record);
    c->has_record = true;
    sim_trace(sc->sim, "kafka: the topic of cursors has xmax %llu, lsn %llu",
              (unsigned long long)c->record.prev.xmax, (unsigned long long)c->record.lsn);
}

static void end_transaction(struct scene *sc, struct call *call, bool commits)
{
    struct transactional_id *id = &sc->coordinator.ids[call->which];
    const struct transact_producer *producer = &call->producers[call->which];
    bool lost =
        producer->failed || (producer->txn != 0 && producer->txn <= id->last && producer->txn != id->open);
    if (producer->txn > id->last)
        id->last = producer->txn; /* what of it comes late is refused */
    if (commits && (lost || scene_strikes(sc, RFAULT_COMMIT_FAILS, 0.15))) {
        call->end = CALL_UNKNOWN; /* the client gives up, and OPEN aborts it */
#ifdef SIM_BUG_RECORD_OUTSIDE
        store_record(sc, call);
#endif
        return;
    }
    decide(sc, id, commits);
    call->end = commits ? CALL_DONE : CALL_ABORTED;
    if (!commits)
        return;
    store_record(sc, call);
    audit_position(sc, &sc->coordinator.record, "the position in Kafka");
}

void transact_called(struct scene *sc, struct call *call)
{
    const struct door *d = &sc->doors[call->door];
    bool alive = d->life == call->life && d->transact.serial == call->serial;
    if (!alive && rng_chance(&sc->rng, 0.5))
        return; /* its connection went before the broker had it */
    bool unknown = call->kind == TRANSACT_COMMIT && scene_strikes(sc, RFAULT_COMMIT_UNKNOWN, 0.1);
    bool nothing = unknown && rng_chance(&sc->fault_rng[RFAULT_COMMIT_UNKNOWN], 0.5);
    if (call->kind == TRANSACT_OPEN) {
        if (!open_next(sc, call)) {
            kafka_consume(sc);
            sim_at(sc->sim, open_delay(sc),
                   (struct happening){.kind = SCENE_CALL, .node = call->door, .what = call});
            return;
        }
    } else if (call->producers[call->which].epoch != sc->coordinator.ids[call->which].epoch)
        call->end = CALL_FENCED;
    else if (!nothing)
        end_transaction(sc, call, call->kind == TRANSACT_COMMIT);
    kafka_consume(sc);
    if (unknown && call->end != CALL_FENCED)
        call->end = CALL_UNKNOWN;
    sim_at(sc->sim, call_delay(sc),
           (struct happening){
               .kind = SCENE_CALL_ANSWERED, .node = call->door, .serial = call->life, .what = call});
}

/* ---- the answer ---------------------------------------------------------------------------------------------------------------- */

static void opened(struct scene *sc, struct door *d, struct call *call)
{
    d->transact.open = true;
    memcpy(d->transact.producers, call->producers, sizeof(call->producers));
    relay_core_opened(d->core, sc->sim->now, call->has_position ? &call->position : NULL);
}

static void ended(struct scene *sc, struct door *d, const struct call *call)
{
    static const char *const NAMES[] = {"committed", "aborted", "fenced"};
    static const enum relay_commit HOW[] = {RELAY_COMMITTED, RELAY_ABORTED, RELAY_COMMIT_FENCED};
    sim_trace(sc->sim, "n%d: its transaction is %s", d->index, NAMES[call->end]);
    if (call->end != CALL_DONE) {
        audit_incident(sc);
        memset(d->knows_parked, 0, sizeof(d->knows_parked));
        memset(d->client[call->which], 0, sizeof(d->client[call->which]));
        d->purges++;
    }
    d->transact.producers[call->which].txn = 0;
    d->transact.producers[call->which].failed = false;
    d->transact.open = d->transact.open && call->end != CALL_FENCED;
    relay_core_committed(d->core, sc->sim->now, HOW[call->end]);
}

void transact_answered(struct scene *sc, struct call *call)
{
    struct door *d = &sc->doors[call->door];
    struct transact *t = &d->transact;
    if (t->serial != call->serial || t->busy == TRANSACT_NONE)
        return;
    t->busy = TRANSACT_NONE;
    if (call->end == CALL_UNKNOWN) {
        kafka_producer_lost(sc, d);
        return;
    }
    if (call->kind == TRANSACT_OPEN)
        opened(sc, d, call);
    else
        ended(sc, d, call);
    door_turn(sc, d);
}

void transact_forget(struct scene *sc)
{
    while (sc->all_calls != NULL) {
        struct call *c = sc->all_calls;
        sc->all_calls = c->all;
        position_done(&c->position);
        free(c);
    }
    position_done(&sc->coordinator.record);
}
