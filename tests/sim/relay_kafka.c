/*
 * The simulated Kafka client of each relay process, and the topic: queues in order, requests that fail, reports that wander.
 *
 * As with an idempotent producer, a partition's records are stored in the order in which they were produced, and after one
 * that failed nothing later of its partition is stored until the client was purged.
 */
#include <stdlib.h>
#include <string.h>

#include "tests/sim/relay_world.h"

#define MS NS_PER_MS

bool kafka_idle(const struct scene *sc, const struct door *d, int which)
{
    for (int i = 0; i < sc->plan.partitions; i++) {
        const struct client_partition *p = &d->client[which][i];
        if (p->out || (p->count > 0 && !p->stuck))
            return false;
    }
    return d->reports_due[which] == 0;
}

/* ---- the topic ------------------------------------------------------------------------------------------------------------------- */

void kafka_consume(struct scene *sc)
{
    for (int i = 0; i < sc->plan.partitions; i++) {
        struct topic_partition *t = &sc->topic[i];
        while (t->read < t->count && t->records[t->read].state != RECORD_UNDECIDED) {
            const struct record *r = &t->records[t->read++];
            if (r->state == RECORD_COMMITTED)
                audit_seen(sc, r);
        }
    }
}

static void append(struct scene *sc, const struct request_to_kafka *rq, int row)
{
    struct topic_partition *t = &sc->topic[rq->partition];
    if (t->count == t->room) {
        t->room = t->room == 0 ? 64 : 2 * t->room;
        t->records = realloc(t->records, (size_t)t->room * sizeof(*t->records));
        ENSURE(t->records != NULL);
    }
    t->records[t->count++] = (struct record){
        .row = row, .txn = rq->txn, .era = rq->era, .state = rq->txn ? RECORD_UNDECIDED : RECORD_COMMITTED};
    sim_trace(sc->sim, "kafka: row %lld key k%d%s", (long long)sc->db.rows[row].id, sc->db.rows[row].key,
              rq->txn ? ", not decided yet" : "");
    if (rq->txn == 0)
        sc->db.rows[row].stored++;
}

/* ---- a client ---------------------------------------------------------------------------------------------------------------------- */

static int partition_of(const struct scene *sc, int row)
{
    int key = sc->db.rows[row].key;
    return (key >= 0 ? key : row) % sc->plan.partitions;
}

static void mail(struct scene *sc, struct request_to_kafka *rq, enum scene_happening kind, int64_t delay)
{
    if (kind != SCENE_STORED)
        sc->doors[rq->door].reports_due[rq->which]++;
    sim_at(sc->sim, delay,
           (struct happening){.kind = (int)kind, .node = rq->door, .serial = rq->life, .what = rq});
}

static struct request_to_kafka *request_new(struct scene *sc, struct door *d, int which, int partition)
{
    struct request_to_kafka *rq = calloc(1, sizeof(*rq));
    ENSURE(rq != NULL);
    rq->all = sc->all_requests;
    sc->all_requests = rq;
    rq->door = d->index;
    rq->life = d->life;
    rq->producer = d->producer;
    rq->purges = d->purges;
    rq->which = which;
    rq->epoch = d->transact.producers[which].epoch;
    rq->txn = d->transact.producers[which].txn;
    rq->era = d->era;
    rq->partition = partition;
    return rq;
}

static void send_next(struct scene *sc, struct door *d, int which, int partition)
{
    struct client_partition *p = &d->client[which][partition];
    if (p->out || p->count == 0 || p->stuck)
        return;
    struct request_to_kafka *rq = request_new(sc, d, which, partition);
    int most = (int)scene_delay(sc, 1, ARRAY_LEN(rq->messages));
    rq->count = p->count < most ? p->count : most;
    memcpy(rq->messages, p->queue, (size_t)rq->count * sizeof(*rq->messages));
    p->count -= rq->count;
    memmove(p->queue, p->queue + rq->count, (size_t)p->count * sizeof(*p->queue));
    p->out = true;
    for (int i = 0; i < rq->count; i++)
        audit_sent(sc, d, rq->messages[i].row);
    int64_t delay = scene_delay(sc, MS / 10, 4 * MS);
    if (sc->kafka_back_at > sc->sim->now)
        delay += sc->kafka_back_at - sc->sim->now;
    mail(sc, rq, SCENE_STORED, delay);
}

/* One message is reported outside of any request: refused before it was sent, or purged. */
static void report_alone(struct scene *sc, struct door *d, struct message m, enum relay_result result)
{
    struct request_to_kafka *rq = request_new(sc, d, d->transact.turn, -1);
    rq->messages[0] = m;
    rq->count = 1;
    rq->result[0] = result;
    mail(sc, rq, SCENE_REPORTED, scene_delay(sc, 0, 3 * MS));
}

/* The client does not even take it. */
static void refuse_at_once(struct scene *sc, struct door *d, struct message m)
{
    struct row *r = &sc->db.rows[m.row];
    audit_incident(sc);
    sim_trace(sc->sim, "n%d: row %lld is refused at once", d->index, (long long)r->id);
    r->refused = true;
    int64_t parked = relay_core_counts(d->core).parked;
    relay_core_report(d->core, sc->sim->now, m.seq, RELAY_REFUSED, PARK_TOO_LARGE, "too large");
    if (r->key >= 0 && !d->exactly_once &&
        relay_core_counts(d->core).parked > parked) /* not by an earlier life */
        d->knows_parked[r->key] = true;
}

void kafka_produce(struct scene *sc, struct door *d, uint64_t seq, int row)
{
    int partition = partition_of(sc, row), which = d->transact.turn;
    struct client_partition *p = &d->client[which][partition];
    struct transact_producer *producer = &d->transact.producers[which];
    struct message m = {seq, row};
    if (d->exactly_once &&
        (!d->transact.open || d->transact.busy == TRANSACT_OPEN || d->transact.busy == TRANSACT_ABORT))
        sim_broken(sc->sim, "contract", "n%d publishes outside of a transaction", d->index);
    if (d->exactly_once && producer->txn == 0)
        producer->txn = ++sc->txns;
    if (sc->db.rows[row].poison && sc->plan.poison_known == POISON_AT_ONCE) {
        refuse_at_once(sc, d, m);
        return;
    }
    if (sc->db.rows[row].poison && sc->plan.poison_known == POISON_UNSENT) {
        report_alone(sc, d, m, RELAY_REFUSED);
        return;
    }
    if (p->count == (int)ARRAY_LEN(p->queue))
        sim_broken(sc->sim, "G6", "n%d has %d messages in one partition's queue", d->index, p->count);
    p->queue[p->count++] = m;
    send_next(sc, d, which, partition);
}

/* What is not sent is thrown away and never reported. */
void kafka_drop(struct scene *sc, struct door *d, int which)
{
    d->purges++;
    for (int i = 0; i < sc->plan.partitions; i++) {
        d->client[which][i].count = 0;
        d->client[which][i].stuck = false;
    }
}

/* With transactions only their end throws something away. */
void kafka_purge(struct scene *sc, struct door *d)
{
    if (d->exactly_once)
        return;
    if (!relay_core_leads(d->core,
                          sc->sim->now)) { /* should it get its lease back, it publishes them again */
        audit_incident(sc);
        memset(d->knows_parked, 0, sizeof(d->knows_parked));
    }
    d->purges++;
    for (int i = 0; i < sc->plan.partitions; i++) {
        struct client_partition *p = &d->client[0][i];
        for (int k = 0; k < p->count; k++)
            report_alone(sc, d, p->queue[k], RELAY_FAILED);
        p->count = 0;
        p->stuck = false;
    }
}

/* ---- the broker takes a request ------------------------------------------------------------------------------------------- */

static void store_all(struct scene *sc, struct request_to_kafka *rq)
{
    for (int i = 0; i < rq->count; i++) {
        rq->result[i] = RELAY_ACKED;
        append(sc, rq, rq->messages[i].row);
    }
    kafka_consume(sc);
}

static void fail_all(struct request_to_kafka *rq, enum relay_result result)
{
    for (int i = 0; i < rq->count; i++)
        rq->result[i] = result;
}

static bool has_poison(const struct scene *sc, const struct request_to_kafka *rq)
{
    for (int i = 0; i < rq->count; i++)
        if (sc->db.rows[rq->messages[i].row].poison)
            return true;
    return false;
}

/* A refused request says which record it was, when there is but one. */
static void take_request(struct scene *sc, struct door *d, struct request_to_kafka *rq, bool ours)
{
    struct transact_producer *producer = &d->transact.producers[rq->which];
    if (rq->epoch != 0 && !transact_takes(sc, rq)) {
        fail_all(rq, RELAY_FAILED);
        if (ours && rq->txn == producer->txn)
            producer->failed = true;
        return;
    }
    bool refused = has_poison(sc, rq) || (rq->count > 1 && scene_strikes(sc, RFAULT_BATCH_REFUSED, 0.1));
    bool fails = scene_strikes(sc, RFAULT_KAFKA_FAILS, 0.1);
    bool stored_all_the_same = fails && rng_chance(&sc->fault_rng[RFAULT_KAFKA_FAILS], 0.5) && !refused;
    if (refused)
        fail_all(rq, rq->count > 1 || rng_chance(&sc->rng, 0.3) ? RELAY_SUSPECT : RELAY_REFUSED);
    else if (!fails || stored_all_the_same)
        store_all(sc, rq);
    if (fails)
        fail_all(rq, RELAY_FAILED);
    if (ours && d->purges == rq->purges && (refused || fails))
        d->client[rq->which][rq->partition].stuck = rq->count > 1 || fails;
    if (ours && rq->txn != 0 && rq->txn == producer->txn && (refused || fails))
        producer->failed = true;
}

void kafka_stored(struct scene *sc, struct request_to_kafka *rq)
{
    struct door *d = &sc->doors[rq->door];
    bool ours = d->life == rq->life && d->producer == rq->producer;
    if (!ours && rng_chance(&sc->rng, 0.5))
        return; /* the connection went before the broker had it */
    take_request(sc, d, rq, ours);
    if (!ours)
        return;
    d->client[rq->which][rq->partition].out = false;
    if (scene_strikes(sc, RFAULT_REPORT_LOST, 0.03)) {
        mail(sc, rq, SCENE_CLIENT_FAILS, scene_delay(sc, 10 * MS, 1500 * MS));
        return;
    }
    mail(sc, rq, SCENE_REPORTED, scene_delay(sc, MS / 10, 5 * MS));
    if (scene_strikes(sc, RFAULT_REPORT_DOUBLED, 0.2))
        mail(sc, rq, SCENE_REPORTED, scene_delay(sc, MS, 50 * MS));
    send_next(sc, d, rq->which, rq->partition);
}

/* ---- reports ---------------------------------------------------------------------------------------------------------------- */

static void report(struct scene *sc, struct door *d, const struct request_to_kafka *rq, int i)
{
    struct row *r = &sc->db.rows[rq->messages[i].row];
    if (rq->result[i] != RELAY_ACKED) {
        static const char *const NAMES[] = {"acked", "refused", "suspect", "failed"};
        sim_trace(sc->sim, "n%d: row %lld is %s", d->index, (long long)r->id, NAMES[rq->result[i]]);
        audit_incident(sc);
    }
    if (rq->result[i] == RELAY_FAILED || rq->result[i] == RELAY_SUSPECT || d->exactly_once)
        memset(d->knows_parked, 0, sizeof(d->knows_parked)); /* rows not stored yet are published again */
    if (r->poison && rq->result[i] == RELAY_REFUSED)
        r->refused = true;
    struct relay_counts before = relay_core_counts(d->core);
    relay_core_report(d->core, sc->sim->now, rq->messages[i].seq, rq->result[i], PARK_TOO_LARGE, "too large");
    if (relay_core_counts(d->core).rewinds > before.rewinds)
        memset(d->knows_parked, 0, sizeof(d->knows_parked));
    if (r->key >= 0 && !d->exactly_once && relay_core_counts(d->core).parked > before.parked)
        d->knows_parked[r->key] = true;
}

void kafka_reported(struct scene *sc, struct request_to_kafka *rq)
{
    struct door *d = &sc->doors[rq->door];
    if (d->producer != rq->producer)
        return;
    d->reports_due[rq->which]--;
    for (int i = 0; i < rq->count; i++)
        report(sc, d, rq, i);
    transact_push(sc, d);
    door_turn(sc, d);
}

/* It never learns what became of a request, and gives up. */
void kafka_client_fails(struct scene *sc, const struct request_to_kafka *rq)
{
    struct door *d = &sc->doors[rq->door];
    if (d->producer == rq->producer)
        kafka_producer_lost(sc, d);
}

void kafka_producer_lost(struct scene *sc, struct door *d)
{
    sim_trace(sc->sim, "n%d: its Kafka client must be made anew", d->index);
    audit_incident(sc);
    d->producer = ++sc->producers;
    memset(d->knows_parked, 0, sizeof(d->knows_parked));
    memset(d->client, 0, sizeof(d->client));
    memset(d->reports_due, 0, sizeof(d->reports_due));
    transact_reset(d);
    relay_core_producer_lost(d->core, sc->sim->now);
    door_turn(sc, d);
}

void kafka_forget(struct scene *sc)
{
    while (sc->all_requests != NULL) {
        struct request_to_kafka *rq = sc->all_requests;
        sc->all_requests = rq->all;
        free(rq);
    }
    for (int i = 0; i < TOPIC_PARTITIONS_MAX; i++)
        free(sc->topic[i].records);
}
