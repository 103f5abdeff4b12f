/* A simulated process's end of the stream: asks for it, hands what comes to the core as far as there is room, sends statuses. */
#include <string.h>

#include "tests/sim/relay_world.h"

#define MS NS_PER_MS
#define ASK_FOR_NS (2 * NS_PER_S) /* so long a slot in use, or one being made, is asked for again */

static void mail(struct scene *sc, const struct door *d, enum scene_happening kind, int64_t delay)
{
    sim_at(sc->sim, delay,
           (struct happening){
               .kind = (int)kind, .node = d->index, .serial = d->life, .number = (int64_t)d->feed.serial});
}

bool feed_is(const struct door *d, int64_t serial)
{
    return d->feed.state != FEED_NONE && (int64_t)d->feed.serial == serial;
}

void feed_ask(struct scene *sc, struct door *d, uint64_t lsn)
{
    if (d->kind == RELAY_KIND_TABLE || d->feed.state != FEED_NONE)
        sim_broken(sc->sim, "contract", "n%d asks for a stream it %s", d->index,
                   d->feed.state != FEED_NONE ? "has" : "has no use for");
    d->feed = (struct feed){
        .state = FEED_ASKED, .serial = ++sc->feeds, .lsn = lsn, .give_up_at = sc->sim->now + ASK_FOR_NS};
    sim_trace(sc->sim, "n%d: STREAM from %llu", d->index, (unsigned long long)lsn);
    mail(sc, d, SCENE_FEED_ASKS, scene_delay(sc, MS / 10, 10 * MS));
}

/* At the server. */
void feed_asks(struct scene *sc, struct door *d)
{
    bool away = sc->sim->now < sc->stream_back_at || sc->sim->now < sc->db_back_at;
    if (!away && slot_start(sc, d))
        mail(sc, d, SCENE_FEED_UP, scene_delay(sc, MS / 10, 5 * MS));
    else if (away || sc->sim->now >= d->feed.give_up_at)
        mail(sc, d, SCENE_FEED_FAILS, scene_delay(sc, 0, 20 * MS));
    else
        mail(sc, d, SCENE_FEED_ASKS, scene_delay(sc, 5 * MS, 50 * MS));
}

void feed_up(struct scene *sc, struct door *d)
{
    const struct sender *w = sender_of(sc, d->feed.serial);
    d->feed.state = FEED_UP;
    if (w == NULL)
        return; /* it ended long ago: that is told next */
    sim_trace(sc->sim, "n%d: streams", d->index);
    relay_core_stream_up(d->core, sc->sim->now, w->start, 0);
    door_turn(sc, d);
}

void feed_fails(struct scene *sc, struct door *d)
{
    sim_trace(sc->sim, "n%d: gets no stream", d->index);
    d->feed.state = FEED_NONE;
    relay_core_stream_down(d->core, sc->sim->now);
    door_turn(sc, d);
}

void feed_ends(struct scene *sc, struct door *d)
{
    if (d->feed.state == FEED_UP && rng_chance(&sc->rng, 0.5))
        feed_hears(sc, d);
    if (d->feed.state == FEED_NONE || d->state != DOOR_UP)
        return;
    sim_trace(sc->sim, "n%d: its stream ends", d->index);
    audit_incident(sc);
    memset(d->knows_parked, 0, sizeof(d->knows_parked)); /* what was not stored comes again */
    d->feed.state = FEED_NONE;
    relay_core_stream_down(d->core, sc->sim->now);
    door_turn(sc, d);
}

/* The server learns of it soon, or not before its timeout when the host is gone. */
void feed_close(struct scene *sc, struct door *d, bool host_dies)
{
    struct sender *w = sender_of(sc, d->feed.serial);
    if (d->feed.state == FEED_NONE)
        return;
    sim_trace(sc->sim, "n%d: %s its stream", d->index, host_dies ? "dies with" : "closes");
    d->feed.state = FEED_NONE;
    if (w != NULL && !host_dies)
        sim_at(sc->sim, scene_delay(sc, MS / 10, 30 * MS),
               (struct happening){.kind = SCENE_SENDER_CUT, .node = w->door, .number = (int64_t)w->serial});
}

void feed_status(struct scene *sc, struct door *d, uint64_t lsn)
{
    if (d->feed.state != FEED_UP)
        sim_broken(sc->sim, "contract", "n%d sends a STATUS without a stream", d->index);
    if (!scene_long_calm(sc))
        sim_trace(sc->sim, "n%d: STATUS %llu", d->index, (unsigned long long)lsn);
    slot_status(sc, d, lsn);
}

/* ---- hearing ------------------------------------------------------------------------------------------------------------------- */

static void take(struct sender *w, int count)
{
    w->count -= count;
    memmove(w->out, w->out + count, (size_t)w->count * sizeof(w->out[0]));
}

/* In the middle of a transaction: its rest is lost on the way, and for a while nobody gets it. */
static void cut_midway(struct scene *sc, struct sender *w, const struct relay_stream_row *last)
{
    bool midway = last->end_lsn == 0 && last->index > 1;
    if (!sc->plan.halves || !midway || !scene_strikes(sc, RFAULT_STREAM_ENDS, 0.4))
        return;
    sc->stream_back_at = sc->sim->now + rng_between(&sc->fault_rng[RFAULT_STREAM_ENDS], 50 * MS, 1000 * MS);
    take(w, w->count);
    sender_end(sc, w, "the network is cut in the middle of a transaction");
}

/* The rows in front, up to a keepalive or the core's room, as one page. */
static int hand_rows(struct scene *sc, struct door *d, struct sender *w, int room)
{
    struct relay_stream_row rows[SENDER_ROOM];
    char keys[SENDER_ROOM][16];
    struct page *page = page_new(SENDER_ROOM);
    for (int i = 0; i < w->count && i < room && !w->out[i].alive; i++) {
        const struct feed_message *m = &w->out[i];
        page->rows[page->count++] = m->row;
        rows[i] = (struct relay_stream_row){.row = door_row(sc, m->row, &keys[i]),
                                            .xid = m->xid,
                                            .commit_lsn = m->lsn,
                                            .index = m->index,
                                            .end_lsn = m->end};
    }
    int count = page->count;
    take(w, count);
    cut_midway(sc, w, &rows[count - 1]);
    page_hold(d, page);
    sim_trace(sc->sim, "n%d: hears %d rows, the last of commit %llu", d->index, count,
              (unsigned long long)rows[count - 1].commit_lsn);
    relay_core_streamed(d->core, sc->sim->now, page, rows, count);
    return count;
}

static bool hear_once(struct scene *sc, struct door *d, struct sender *w)
{
    int room = relay_core_stream_room(d->core);
    if (w->count == 0 || room <= 0)
        return false;
    if (!w->out[0].alive)
        return hand_rows(sc, d, w, room) > 0;
    struct feed_message m = w->out[0];
    take(w, 1);
    if (!scene_long_calm(sc))
        sim_trace(sc->sim, "n%d: hears that %llu is sent%s", d->index, (unsigned long long)m.lsn,
                  m.wanted ? ", and is to answer" : "");
    relay_core_stream_alive(d->core, sc->sim->now, m.lsn, m.wanted);
    return true;
}

/* What is there, as far as the core has room; the core acts in between, as it does in the program. */
void feed_hears(struct scene *sc, struct door *d)
{
    struct sender *w = sender_of(sc, d->feed.serial);
    uint64_t serial = d->feed.serial;
    if (d->feed.state != FEED_UP || w == NULL)
        return;
    while (d->state == DOOR_UP && d->feed.state == FEED_UP && d->feed.serial == serial && hear_once(sc, d, w))
        if (rng_chance(&sc->rng, 0.5))
            door_turn(sc, d);
    if (d->state != DOOR_UP)
        return;
    if (w->live && w->count < SENDER_ROOM)
        sender_wake(sc, w, scene_delay(sc, MS / 20, 2 * MS));
    door_turn(sc, d);
}
