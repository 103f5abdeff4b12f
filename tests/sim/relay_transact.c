/*
 * Kafka's transactions: each process's thread that makes the transactional calls, the coordinator that fences, and the topic of cursors.
 *
 * All relays share one transactional.id. OPEN raises its epoch and aborts what an older producer left open; records, commits and aborts of an
 * older epoch are refused. A commit decides the rows and the record of the position at once.
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
                       .epoch = t->epoch,
                       .txn = t->txn,
                       .failed = t->failed,
                       .kafka_rules = t->kafka_rules,
                       .position = t->position};
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
    if (kind != TRANSACT_OPEN && t->epoch == 0)
        sim_broken(sc->sim, "contract", "n%d: %s without an open producer", d->index, NAMES[kind]);
    t->busy = kind;
    t->serial = ++sc->calls;
    t->at_broker = false;
    sim_trace(sc->sim, "n%d: %s", d->index, NAMES[kind]);
    t->kafka_rules = a->authority_kafka;
    if (kind == TRANSACT_COMMIT) {
        position_done(&t->position);
        db_copy_position(a->position, &t->position);
    } else {
        kafka_drop(sc, d); /* what is not sent belongs to a transaction that ends here */
    }
    transact_push(sc, d);
}

/* COMMIT and ABORT wait until nothing is on its way and all is reported; a transaction that lost a record can only be aborted. */
void transact_push(struct scene *sc, struct door *d)
{
    struct transact *t = &d->transact;
    if (t->busy == TRANSACT_NONE || t->at_broker)
        return;
    if (t->busy != TRANSACT_OPEN && !kafka_idle(sc, d))
        return;
    call(sc, d);
}

/* ---- the broker ------------------------------------------------------------------------------------------------------------------- */

static void decide(struct scene *sc, uint64_t txn, bool commits)
{
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
    if (sc->coordinator.open == txn)
        sc->coordinator.open = 0;
    sim_trace(sc->sim, "kafka: transaction %llu is %s", (unsigned long long)txn,
              commits ? "committed" : "aborted");
}

bool transact_takes(struct scene *sc, const struct request_to_kafka *rq)
{
    struct coordinator *c = &sc->coordinator;
    if (rq->epoch != c->epoch || rq->txn == 0 || (rq->txn != c->open && rq->txn <= c->last))
        return false;
    if (c->open != rq->txn) {
        c->open = c->last = rq->txn;
        sim_at(sc->sim, TXN_TIMEOUT_NS,
               (struct happening){.kind = SCENE_TXN_TIMEOUT, .number = (int64_t)rq->txn});
    }
    return true;
}

/* The broker aborts it, and its producer is fenced. */
void transact_timeout(struct scene *sc, uint64_t txn)
{
    if (sc->coordinator.open != txn)
        return;
    sim_trace(sc->sim, "kafka: transaction %llu is open for too long", (unsigned long long)txn);
    audit_incident(sc);
    sc->coordinator.epoch++;
    decide(sc, txn, false);
    kafka_consume(sc);
}

static void open_producer(struct scene *sc, struct call *call)
{
    struct coordinator *c = &sc->coordinator;
    decide(sc, c->open, false);
    call->epoch = ++c->epoch;
    call->has_position = c->has_record && call->kafka_rules;
    if (call->has_position)
        db_copy_position(&c->record, &call->position);
    sim_trace(sc->sim, "kafka: n%d has producer epoch %lld", call->door, (long long)c->epoch);
}

static void store_record(struct scene *sc, const struct call *call)
{
    struct coordinator *c = &sc->coordinator;
    position_done(&c->record);
    db_copy_position(&call->position, &c->record);
    c->has_record = true;
    sim_trace(sc->sim, "kafka: the topic of cursors has xmax %llu, lsn %llu",
              (unsigned long long)c->record.prev.xmax, (unsigned long long)c->record.lsn);
}

static void end_transaction(struct scene *sc, struct call *call, bool commits)
{
    struct coordinator *c = &sc->coordinator;
    bool lost = call->failed || (call->txn != 0 && call->txn <= c->last && call->txn != c->open);
    if (call->txn > c->last)
        c->last = call->txn; /* what of it comes late is refused */
    if (lost || !commits || scene_strikes(sc, RFAULT_COMMIT_FAILS, 0.15)) {
        call->end = CALL_ABORTED;
        decide(sc, c->open, false);
#ifdef SIM_BUG_RECORD_OUTSIDE
        if (commits)
            store_record(sc, call);
#endif
        return;
    }
    decide(sc, c->open, true);
    store_record(sc, call);
    audit_position(sc, &c->record, "the position in Kafka");
}

void transact_called(struct scene *sc, struct call *call)
{
    struct coordinator *c = &sc->coordinator;
    const struct door *d = &sc->doors[call->door];
    bool alive = d->life == call->life && d->transact.serial == call->serial;
    if (!alive && rng_chance(&sc->rng, 0.5))
        return; /* its connection went before the broker had it */
    bool unknown = call->kind == TRANSACT_COMMIT && scene_strikes(sc, RFAULT_COMMIT_UNKNOWN, 0.1);
    bool nothing = unknown && rng_chance(&sc->fault_rng[RFAULT_COMMIT_UNKNOWN], 0.5);
    if (call->kind == TRANSACT_OPEN)
        open_producer(sc, call);
    else if (call->epoch != c->epoch)
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
    d->transact.epoch = call->epoch;
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
        memset(d->client, 0, sizeof(d->client));
        d->purges++;
    }
    if (call->end == CALL_FENCED)
        d->transact.epoch = 0;
    relay_core_committed(d->core, sc->sim->now, HOW[call->end]);
}

void transact_answered(struct scene *sc, struct call *call)
{
    struct door *d = &sc->doors[call->door];
    struct transact *t = &d->transact;
    if (t->serial != call->serial || t->busy == TRANSACT_NONE)
        return;
    t->busy = TRANSACT_NONE;
    t->txn = 0;
    t->failed = false;
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
