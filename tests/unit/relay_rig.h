/* One relay core and its world for tests that read as a dialogue: facts in, actions out. */
#pragma once

#include <stdarg.h>
#include <setjmp.h>
#include <string.h>

#include <cmocka.h>

#include "common/clock.h"
#include "producer/relay/core/core.h"
#include "producer/relay/core/keyset.h"

#define RIG_UNUSED __attribute__((unused))

static struct relay_core *core;
static int64_t now;
static int rig_pages[64]; /* what pages point at: 1 held, 0 freed */
static int rig_page_count;

RIG_UNUSED static struct snapshot snap(const char *text)
{
    struct snapshot s = {0};

    assert_int_equal(snapshot_parse(text, strlen(text), &s, NULL), 0);
    return s;
}

RIG_UNUSED static bool next(struct relay_action *a)
{
    if (!relay_core_next(core, now, a))
        return false;
    if (a->kind == RELAY_FREE_PAGE) {
        int *held = a->page;

        assert_int_equal(*held, 1); /* freed once */
        *held = 0;
    }
    return true;
}

/* The next action, which must be of that kind; pages are freed on the way. */
RIG_UNUSED static struct relay_action expect(enum relay_action_kind kind)
{
    struct relay_action a;

    do
        assert_true(next(&a));
    while (a.kind == RELAY_FREE_PAGE && kind != RELAY_FREE_PAGE);
    assert_int_equal(a.kind, kind);
    return a;
}

RIG_UNUSED static void expect_nothing(void)
{
    struct relay_action a;

    while (next(&a))
        assert_int_equal(a.kind, RELAY_FREE_PAGE);
}

/* Let time pass until an action of that kind comes; looks find nothing new, saves succeed, statuses go out. */
static const char *rig_quiet_look = "100:100:";
static uint64_t rig_look_lsn = 1000;
static uint64_t rig_publication;
static int64_t rig_drawn; /* from the sequence, which only rises */

RIG_UNUSED static int64_t rig_draw(int64_t id)
{
    rig_drawn = id > rig_drawn ? id : rig_drawn;
    return rig_drawn;
}

RIG_UNUSED static void rig_answer(const struct relay_action *a)
{
    struct snapshot s;

    if (a->kind == RELAY_SAVE) {
        relay_core_saved(core, now, true, 1);
    } else if (a->kind == RELAY_LOAD_KEYS) {
        relay_core_keys(core, now, NULL, 0, false, 0);
    } else if (a->kind == RELAY_MAINTAIN) {
        relay_core_maintained(core, now);
    } else if (a->kind == RELAY_LOOK) {
        s = snap(rig_quiet_look);
        struct look look = {s, s.xmax, rig_drawn, rig_drawn, rig_look_lsn, rig_publication};
        relay_core_looked(core, now, &look);
    } else {
        if (a->kind < RELAY_STREAM)
            fail_msg("action %d unasked for", (int)a->kind);
        assert_true(a->kind == RELAY_FREE_PAGE || a->kind == RELAY_STATUS || a->kind == RELAY_PURGE ||
                    a->kind == RELAY_STREAM || a->kind == RELAY_UNSTREAM);
    }
}

RIG_UNUSED static struct relay_action wait_for(enum relay_action_kind kind)
{
    struct relay_action a;

    for (int i = 0; i < 10000; i++) {
        int64_t wait;

        while (next(&a)) {
            if (a.kind == kind)
                return a;
            rig_answer(&a);
        }
        wait = relay_core_tick(core, now);
        assert_true(wait < 3600 * NS_PER_S);
        now += wait > 0 ? wait : NS_PER_US;
    }
    fail_msg("action %d does not come", (int)kind);
    return a;
}

RIG_UNUSED static struct relay_core_config wal_config(void)
{
    struct relay_core_config cfg = relay_core_config_default();

    cfg.kind = RELAY_KIND_WAL;
    return cfg;
}

RIG_UNUSED static void begin_with(struct relay_core_config cfg)
{
    struct err err = {0};

    now = NS_PER_S;
    rig_page_count = 0;
    rig_quiet_look = "100:100:";
    rig_look_lsn = 1000;
    rig_publication = 0;
    rig_drawn = 0;
    core = relay_core_new(&cfg, &err);
    assert_non_null(core);
}

RIG_UNUSED static void end(void)
{
    relay_core_free(core);
}

RIG_UNUSED static void take_lease_at(struct position p, int64_t retries)
{
    rig_draw(p.prev_floor);
    rig_draw(p.cur.floor);
    relay_core_connected(core, now);
    expect(RELAY_ACQUIRE);
    relay_core_acquired(core, now, 7, &p, false);
    expect(RELAY_LOAD_KEYS);
    relay_core_keys(core, now, NULL, 0, false, retries);
}

RIG_UNUSED static void *rig_page(void)
{
    rig_pages[rig_page_count] = 1;
    return &rig_pages[rig_page_count++];
}

/* Rows of one transaction, ids rising from first_id; with its end when end_lsn is not 0. */
RIG_UNUSED static void stream_rows(uint32_t xid, uint64_t commit_lsn, int64_t index, int64_t first_id,
                                   int count, uint64_t end_lsn)
{
    struct relay_stream_row rows[20];
    char keys[20][24];

    assert_true(count <= 20 && count <= relay_core_stream_room(core));
    for (int i = 0; i < count; i++) {
        snprintf(keys[i], sizeof(keys[i]), "k%d", (int)first_id + i);
        rows[i] = (struct relay_stream_row){.row = {.id = first_id + i,
                                                    .topic = SLICE_LIT("t"),
                                                    .key = {keys[i], strlen(keys[i])},
                                                    .bytes = 100},
                                            .xid = xid,
                                            .commit_lsn = commit_lsn,
                                            .index = index + i,
                                            .end_lsn = i == count - 1 ? end_lsn : 0};
    }
    relay_core_streamed(core, now, rig_page(), rows, count);
}

RIG_UNUSED static void table_page(int64_t first_id, int count, bool more)
{
    struct relay_row rows[20];

    assert_true(count <= 20);
    for (int i = 0; i < count; i++)
        rows[i] = (struct relay_row){.id = first_id + i, .topic = SLICE_LIT("t"), .bytes = 100};
    relay_core_page(core, now, rig_page(), rows, count, more, 0);
}

RIG_UNUSED static void look_is(const char *text, int64_t ceiling, uint64_t lsn)
{
    struct snapshot s = snap(text);
    struct look look = {s, s.xmax, rig_draw(ceiling), rig_drawn, lsn, rig_publication};

    relay_core_looked(core, now, &look);
}

RIG_UNUSED static void acked(uint64_t seq)
{
    relay_core_report(core, now, seq, RELAY_ACKED, PARK_REFUSED, NULL);
}

/* A relay of the stream, live: position lsn 1000, everything below xid 100 settled. */
RIG_UNUSED static void go_live(struct relay_core_config cfg)
{
    struct position p = {.prev = snap("100:100:"), .lsn = 1000};

    begin_with(cfg);
    take_lease_at(p, 0);
    wait_for(RELAY_STREAM);
    relay_core_stream_up(core, now, 1000, 0);
    if (cfg.kind == RELAY_KIND_WAL) {
        expect(RELAY_STATUS);
        expect(RELAY_LOOK);
        look_is("100:100:", 0, 1000);
        relay_core_stream_alive(core, now, 1000, false);
    }
    assert_true(relay_core_counts(core).streaming);
}
