/* Exactly-once: rows and the position that covers them end in one Kafka transaction, and the core goes on from what was committed. */
#include <string.h>

#include "producer/relay/core/core_state.h"

#define OPEN_AGAIN_NS (100 * NS_PER_MS) /* after a producer that failed */
#define PAUSE_NS (100 * NS_PER_MS)      /* before rows that failed are published again */

/* ---- condemned rows ---------------------------------------------------------------------------------------------- */

/*
 * A row that Kafka refused has spoilt its transaction. When the transaction has been aborted the rows before it are published again, and
 * this one is parked without being handed to Kafka.
 *
 * With no place left another one is forgotten for it, and transactions end behind the first of them that is parked. What spoils such a
 * transaction lies before all of them and is remembered next, so in the end the very first is.
 */
static void condemn(struct transact *t, int64_t id, const struct core_refusal *why)
{
    struct condemned *it = &t->condemned[0];

    if (t->condemned_count < CONDEMNED_MAX)
        it = &t->condemned[t->condemned_count++];
    *it = (struct condemned){.id = id, .reason = why->reason};
    snprintf(it->detail, sizeof(it->detail), "%s", why->detail ? why->detail : "");
}

struct condemned *core_transact_condemned(struct relay_core *c, int64_t id)
{
    struct transact *t = &c->transact;

    for (size_t k = 0; k < t->condemned_count; k++)
        if (t->condemned[k].id == id)
            return &t->condemned[k];
    return NULL;
}

void core_transact_condemned_parked(struct relay_core *c, struct condemned *it)
{
    it->parked = true;
    if (c->transact.condemned_count == CONDEMNED_MAX)
        c->transact.ending = true;
}

static void forgive_parked(struct transact *t)
{
    size_t kept = 0;

    for (size_t i = 0; i < t->condemned_count; i++)
        if (!t->condemned[i].parked)
            t->condemned[kept++] = t->condemned[i];
    t->condemned_count = kept;
}

/* ---- beginning, ending ------------------------------------------------------------------------------------------- */

/* Is there one that rows may belong to? While one is being committed, it is the next. */
static bool is_open(const struct transact *t)
{
    return t->state == TRANSACT_READY || t->state == TRANSACT_COMMITTING;
}

static void begin_anew(struct transact *t)
{
    t->rows = 0;
    t->began_ns = t->row_ns = 0;
    t->ending = t->failed = t->saving_covers = false;
}

void core_transact_close(struct relay_core *c)
{
    struct transact *t = &c->transact;

    t->abandoned = t->abandoned || (is_open(t) && t->rows > 0);
    begin_anew(t);
    t->state = TRANSACT_CLOSED;
    t->fenced = false;
    t->open_at = 0;
    t->condemned_count = 0;
    t->kafka_rules = t->row_says_so = t->saving_says_so = t->unsaved = t->flushed = false;
    t->went_back = t->of_a_clone = false;
    t->judged = false; /* what a save under way tells is dropped with its answer */
    t->careful_next = 0;
    t->row_save = t->sure_save = 0;
    position_done(&t->committed);
    position_done(&t->committing);
}

void core_transact_acquired(struct relay_core *c, struct position *p, bool kafka_rules)
{
    struct transact *t = &c->transact;

    core_transact_close(c);
    t->abandoned = false; /* OPEN ends it */
    t->row_save = p->save;
    t->next_xid = p->next_xid;
    t->committed = *p;
    *p = (struct position){0};
    t->kafka_rules = t->row_says_so = kafka_rules;
}

/* Go on from what was committed last: whatever was done since then never was. */
static bool reload(struct relay_core *c)
{
    struct position p;

    core_drop_rows(c);
    if (stream_up(&c->stream))
        core_stream_off(c);
    c->stream.caught_up = false;
    if (c->db != RELAY_SAVE && c->db != RELAY_RELEASE && c->park_count > 0) { /* they will be parked again */
        core_drop_parks(c, c->park_count);
        core_keys_anew(c);
    }
    if (position_copy(&c->transact.committed, &p, NULL) < 0)
        return false;
    bool went_back = c->cursor.went_back; /* no other position makes that good but one of Postgres */
    cursor_load(&c->cursor, &p);
    c->cursor.went_back = went_back;
    core_retry_loaded(c);
    return true;
}

/*
 * What the position passed, and more, was on disk with the save that it stands on. A row without that save is of an older copy of the
 * database's files, which gives the same transaction ids out again. The next save says that the row counts, before its number catches up; until the
 * position in Kafka is known, no save gives the row a number: the lease may have to be renewed meanwhile, or given back.
 */
static bool went_back(const struct transact *t, const struct position *p)
{
    return p->save > t->row_save;
}

/*
 * A clone of the database's files that works on the same Kafka has the same name there, and may have committed behind our back: rows would look
 * published that have ids which it knows as others'. Of this database a position is committed behind a save, so what is there when a lease
 * is new is of an earlier one, with transaction ids that had been given out; and later on it is what was read, or what we have committed.
 */
static bool is_of_a_clone(const struct relay_core *c, const struct position *p)
{
    const struct transact *t = &c->transact;

    if (t->judged)
        return p->save != 0 && p->save != t->committed.save && p->save != t->committing.save;
    return p->epoch >= c->lease.epoch ||
           (t->next_xid != 0 && (p->prev.xmax > t->next_xid || p->cur.snapshot.xmax > t->next_xid));
}

/* false: the row counts. */
static bool believed(struct relay_core *c, const struct position *p)
{
    struct transact *t = &c->transact;

    t->went_back = went_back(t, p); /* or another relay has the lease: the first save tells */
    t->of_a_clone = !t->went_back && is_of_a_clone(c, p);
    if (!t->went_back && !t->of_a_clone)
        return true;
    t->kafka_rules = t->row_says_so = t->saving_says_so = false;
    return false;
}

void relay_core_opened(struct relay_core *c, int64_t now, struct position *p)
{
    struct transact *t = &c->transact;

    ENSURE(c->cfg.exactly_once && t->busy);
    t->busy = false;
    if (t->state != TRANSACT_OPENING) { /* the lease went meanwhile */
        position_done(p);
        return;
    }
    if (p && !believed(c, p)) {
        position_done(p);
    } else if (p) {
        /* What was heard beside rows is on no save: the stream begins where the row says. */
        if (c->cfg.kind == RELAY_KIND_WAL && p->lsn > t->committed.lsn)
            p->lsn = t->committed.lsn;
        if (c->cfg.kind == RELAY_KIND_MESSAGE)
            position_drop_rows(p);
        else
            position_drop_messages(p);
        position_done(&t->committed);
        t->committed = *p;
        *p = (struct position){0};
        t->unsaved = true;
    }
    t->judged = true;
    begin_anew(t);
    t->flushed = false; /* the first save after it proves that the lease is still ours */
    t->state = reload(c) ? TRANSACT_READY : TRANSACT_CLOSED;
    t->open_at = now + OPEN_AGAIN_NS;
    c->look_at = c->row_seen_ns = now;
}

static void committed(struct relay_core *c, int64_t now)
{
    struct transact *t = &c->transact;

    position_done(&t->committed);
    t->committed = t->committing;
    t->committing = (struct position){0};
    t->kafka_rules = t->unsaved = true;
    t->committed_at = now;
    t->state = TRANSACT_READY;
    c->counts.transactions++;
    core_retry_committed(c);
    forgive_parked(t);
#ifdef SIM_BUG_FORGIVE_NEXT
    begin_anew(t);
#endif
}

static void aborted(struct relay_core *c, int64_t now)
{
    struct transact *t = &c->transact;

    for (size_t i = 0; i < t->condemned_count; i++)
        t->condemned[i].parked = false;
    c->counts.aborts++;
    c->counts.rewinds++;
    c->careful_left = t->careful_next;
    t->careful_next = 0;
    begin_anew(t);
    t->state = reload(c) ? TRANSACT_READY : TRANSACT_CLOSED;
    t->open_at = now + OPEN_AGAIN_NS;
}

/* Another relay works. Rows stop at once; the lease is given up when the statement under way has been answered. */
static void fenced(struct relay_core *c)
{
    struct transact *t = &c->transact;

    begin_anew(t);
    core_drop_rows(c);
    t->state = TRANSACT_CLOSED;
    t->fenced = true;
}

void core_transact_give_up(struct relay_core *c, int64_t now)
{
    if (!c->transact.fenced || c->db != DB_IDLE)
        return;
    c->counts.leases_lost++;
    core_stop_working(c);
    c->acquire_at = now + c->cfg.standby_poll_ns;
}

void relay_core_committed(struct relay_core *c, int64_t now, enum relay_commit how)
{
    struct transact *t = &c->transact;
    bool stale = t->state != TRANSACT_COMMITTING && t->state != TRANSACT_ABORTING;

    ENSURE(c->cfg.exactly_once && t->busy);
    t->busy = false;
    t->abandoned = t->abandoned && how != RELAY_COMMIT_FENCED; /* whoever fenced us ends what we left open */
    if (stale) /* the lease went meanwhile: what OPEN reads counts */
        return;
    ENSURE(how != RELAY_ABORTED || t->state == TRANSACT_ABORTING);
    if (how == RELAY_COMMIT_FENCED)
        fenced(c);
    else if (how == RELAY_COMMITTED)
        committed(c, now);
    else
        aborted(c, now);
}

void core_transact_lost(struct relay_core *c, int64_t now)
{
    struct transact *t = &c->transact;

    t->busy = t->abandoned = false; /* OPEN ends what was left open */
    if (t->state == TRANSACT_CLOSED)
        return;
    for (size_t i = 0; i < t->condemned_count; i++)
        t->condemned[i].parked = false;
    begin_anew(t);
    t->state = TRANSACT_CLOSED;
    t->open_at = now + OPEN_AGAIN_NS;
    c->counts.rewinds++;
    c->careful_left = t->careful_next > 0 ? t->careful_next : c->careful_left;
    t->careful_next = 0;
    (void)reload(c); /* the next OPEN does it again, with what Kafka says */
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

void core_transact_sent(struct relay_core *c, int64_t now)
{
    struct transact *t = &c->transact;

    if (!c->cfg.exactly_once)
        return;
    if (t->rows++ == 0)
        t->began_ns = now;
    t->row_ns = now;
}

void core_transact_dropped(struct relay_core *c)
{
    struct transact *t = &c->transact;

    if (is_open(t) && c->ledger.base < c->ledger.next)
        t->failed = true;
}

void core_transact_put_back(struct relay_core *c)
{
    if (c->cfg.exactly_once)
        c->transact.rows--;
}

/* Nothing of the transaction can be committed any more; a refused row is not handed to Kafka a second time. */
void core_transact_spoilt(struct relay_core *c, int64_t now, int64_t id, const struct core_refusal *why)
{
    struct transact *t = &c->transact;

    if (!is_open(t))
        return; /* it is being aborted */
    t->failed = true;
    if (why->result == RELAY_FAILED) {
        c->publish_at = now + PAUSE_NS;
        return;
    }
    if (why->result == RELAY_SUSPECT)
        t->careful_next = c->careful_left + t->rows;
    if (why->result == RELAY_REFUSED || c->careful_left > 0)
        condemn(t, id, why);
}

/* ---- what is due ------------------------------------------------------------------------------------------------- */

bool core_transact_open(const struct relay_core *c)
{
    const struct transact *t = &c->transact;

    return !c->cfg.exactly_once || (is_open(t) && !t->failed);
}

/*
 * Rows go on while their predecessors are being committed: by the other producer, and every one of those is acknowledged already, so no
 * row can get into the topic before an earlier one of its key. Parked rows are rare, and what is known of them is known of one transaction:
 * they wait for its end. So do the others when that takes long: all of them would be published again if it failed.
 */
static bool may_overlap(const struct relay_core *c, int64_t now)
{
    const struct retry *r = &c->retry;
    const struct transact *t = &c->transact;

    if (t->rows > 0 && now >= t->began_ns + c->cfg.transaction_ns)
        return false;

#ifdef SIM_BUG_OVERLAP_RETRY
    return true;
#endif
    return t->condemned_count == 0 && c->careful_left == 0 && c->park_count == 0 && r->on_its_way == 0 &&
           r->unpark_count == 0 && r->repark_count == 0;
}

bool core_transact_takes_rows(const struct relay_core *c, int64_t now)
{
    const struct transact *t = &c->transact;

    if (!c->cfg.exactly_once)
        return true;
    if (!t->kafka_rules || !t->row_says_so || t->ending || t->failed)
        return false;
    return t->state == TRANSACT_READY || (t->state == TRANSACT_COMMITTING && may_overlap(c, now));
}

/* That the position passed rows of others is nothing to lose; but it is the last word when the lease is given back. */
static bool anything_to_commit(const struct relay_core *c)
{
    return c->transact.rows > 0 || c->cursor.changed || (c->draining && c->cursor.passed);
}

/* Of a transaction without rows: the slot should follow the log, and the truncation of the outbox what others wrote there. */
static int64_t follow_due(const struct relay_core *c)
{
    uint64_t ahead = c->lease.idle ? (uint64_t)c->cfg.status_bytes : 1;

    if (c->cursor.lsn >= c->transact.committed.lsn + ahead)
        return c->transact.committed_at + c->cfg.refresh_ns;
#ifdef SIM_BUG_PASSED_IS_NOTHING
    return CLOCK_NEVER;
#endif
    return c->cursor.passed ? c->transact.committed_at + c->cfg.maintain_ns : CLOCK_NEVER;
}

/* When the transaction is to end. The first one has no rows: it says that from now on the position in Kafka counts. */
static int64_t end_due(const struct relay_core *c)
{
    const struct transact *t = &c->transact;
    bool all_sent = c->ledger.next == c->ledger.end;
    int64_t at, idle_at;

    if (t->state != TRANSACT_READY || t->failed)
        return CLOCK_NEVER;
    if (!t->kafka_rules || t->ending || c->park_count == PARKS_MAX)
        return 0;
    if (c->draining && anything_to_commit(c))
        return 0;
    if (t->rows == 0 && !c->cursor.changed)
        return follow_due(c);
    if (t->rows == 0) /* rows that were parked */
        return t->committed_at + c->cfg.transaction_ns;
    at = t->began_ns +
         (all_sent && !cursor_reading(&c->cursor) ? c->cfg.transaction_light_ns : c->cfg.transaction_ns);
    idle_at = core_retry_uncommitted(c) ? 0 : t->row_ns + c->cfg.transaction_idle_ns;
    return all_sent && idle_at < at ? idle_at : at;
}

/*
 * What a look saw as ended may not be on disk yet, and a database that crashes gives the same transaction ids out again. A position with
 * it may go to Kafka, which would remember, only after a save that waits for the disk was answered; from the decision to end the
 * transaction until then no further look is asked. What comes by the stream is on disk, but a row that knows the save has to know it
 * too (see went_back). It also proves the lease, and stores parked rows before a position passes them.
 */
static bool needs_flush(const struct relay_core *c)
{
    const struct transact *t = &c->transact;

#ifdef SIM_BUG_COMMIT_BEFORE_PARK
    return t->state == TRANSACT_READY && t->ending && !t->flushed;
#endif
    return t->state == TRANSACT_READY && t->ending && (!t->flushed || c->park_count > 0);
}

/* Every row that was handed to Kafka is acknowledged or parked, and what the position has passed is on disk. */
static bool may_commit(const struct relay_core *c, int64_t now)
{
    return c->ledger.base == c->ledger.next && !needs_flush(c) && lease_valid(&c->lease, now);
}

void core_transact_unsure(struct relay_core *c)
{
    c->transact.flushed = c->transact.saving_covers = false;
}

bool core_transact_may_look(const struct relay_core *c)
{
    const struct transact *t = &c->transact;

    return !c->cfg.exactly_once || t->state == TRANSACT_COMMITTING ||
           (t->state == TRANSACT_READY && !t->ending);
}

/* Has everything been committed that can be, before the lease is given back? */
bool core_transact_quiet(const struct relay_core *c)
{
    const struct transact *t = &c->transact;

    if (!c->cfg.exactly_once || t->state == TRANSACT_CLOSED || t->state == TRANSACT_OPENING)
        return true;
    return t->state == TRANSACT_READY && !t->failed && !anything_to_commit(c);
}

/* While others write, the log moves all the time: what was heard up to some time after the last row is enough. */
bool core_transact_at_rest(const struct relay_core *c)
{
    const struct transact *t = &c->transact;
    bool followed = c->cursor.lsn <= t->committed.lsn || t->taken_at >= c->stream.refresh_at;

    return !c->cfg.exactly_once || (t->state == TRANSACT_READY && core_transact_quiet(c) && followed &&
                                    !c->cursor.passed && t->row_says_so && !t->unsaved && !t->ending);
}

/* Not with a lease that has run out: new producers would fence those of the relay that has taken it. */
static int64_t open_due(const struct relay_core *c, int64_t now)
{
    const struct transact *t = &c->transact;

    return t->state == TRANSACT_CLOSED && !t->busy && !t->fenced && lease_valid(&c->lease, now) &&
                   !c->draining
               ? t->open_at
               : CLOCK_NEVER;
}

static bool take(struct transact *t, enum transact_state state, struct relay_action *a,
                 enum relay_action_kind kind)
{
    t->state = state;
    t->busy = true;
    *a = (struct relay_action){.kind = kind, .authority_kafka = t->kafka_rules};
    return true;
}

static bool next_commit(struct relay_core *c, int64_t now, struct relay_action *a)
{
    struct transact *t = &c->transact;

    if (end_due(c) > now)
        return false;
    t->ending = true;
    if (!may_commit(c, now) || cursor_position(&c->cursor, &t->committing, NULL) < 0)
        return false;
    t->committing.save = t->sure_save;
    t->flushed = t->flushed && !stream_up(&c->stream); /* rows come without a look */
    c->cursor.changed = c->cursor.passed = false;
    t->taken_at = now;
    begin_anew(t);
    take(t, TRANSACT_COMMITTING, a, RELAY_COMMIT);
    a->position = &t->committing;
    a->epoch = c->lease.epoch;
    return true;
}

static bool abort_due(const struct relay_core *c)
{
    const struct transact *t = &c->transact;

    return !t->busy && (t->abandoned || (t->state == TRANSACT_READY && t->failed));
}

bool core_transact_next(struct relay_core *c, int64_t now, struct relay_action *a)
{
    struct transact *t = &c->transact;

    if (!c->cfg.exactly_once)
        return false;
    if (abort_due(c)) {
        enum transact_state state = t->state == TRANSACT_READY ? TRANSACT_ABORTING : t->state;

        t->abandoned = false;
        return take(t, state, a, RELAY_ABORT);
    }
    if (open_due(c, now) <= now)
        return take(t, TRANSACT_OPENING, a, RELAY_OPEN);
    return next_commit(c, now, a);
}

int64_t core_transact_due(const struct relay_core *c, int64_t now)
{
    int64_t open_at, end_at;

    if (!c->cfg.exactly_once)
        return CLOCK_NEVER;
    if (abort_due(c))
        return now;
    open_at = open_due(c, now);
    end_at = c->transact.ending && !may_commit(c, now)
                 ? CLOCK_NEVER /* a report, or an answer, goes on with it */
                 : end_due(c);
    return open_at < end_at ? open_at : end_at;
}

/* ---- saves ------------------------------------------------------------------------------------------------------- */

/* When Postgres' row is to learn what was committed. */
int64_t core_transact_save_due(const struct relay_core *c)
{
    const struct transact *t = &c->transact;

    if (needs_flush(c) || (t->ending && c->lease.idle) || (t->kafka_rules && !t->row_says_so))
        return 0;
    return t->unsaved ? c->saved_at + c->cfg.save_ns : CLOCK_NEVER;
}

int core_transact_fill_save(struct relay_core *c, struct relay_action *a)
{
    struct transact *t = &c->transact;

    if (position_copy(&t->committed, &c->saving, NULL) < 0)
        return -1;
    t->unsaved = false;
    t->saving_says_so = t->kafka_rules;
    t->saving_unjudged = t->kafka_rules && !t->judged;
    a->authority_kafka = t->kafka_rules;
    a->unjudged = t->saving_unjudged;
    a->flush = needs_flush(c) || c->park_count > 0 || (t->kafka_rules && !t->row_says_so);
    t->saving_flushes = a->flush;
    /* Rows of the stream may come until it is answered, unless the transaction is about to end. */
    t->saving_covers = a->flush && !a->unjudged && (t->ending || !stream_up(&c->stream));
    return 0;
}

void core_transact_saved(struct relay_core *c, int64_t save)
{
    struct transact *t = &c->transact;

    if (t->saving_unjudged)
        return; /* it has renewed the lease, and nothing else */
    t->row_says_so = t->saving_says_so;
    t->flushed = t->flushed || t->saving_covers;
    t->row_save = save;
    c->counts.went_back += t->went_back;
    c->counts.of_a_clone += t->of_a_clone;
    t->went_back = t->of_a_clone = false;
    if (t->saving_flushes)
        t->sure_save = save;
}
