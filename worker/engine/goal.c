/* Decides what a one-shot run has to do, and when it is over. */
#include "worker/engine/goal.h"

#include <stdlib.h>

#include "worker/engine/memory.h"

#define END_UNKNOWN INT64_MAX /* beyond every position */

struct goal {
    int streams;
    struct goal_stream {
        int64_t end, read;
    } stream[];
};

struct goal *goal_new(int streams)
{
    struct goal *g = memory_zeroed(sizeof(*g) + (size_t)streams * sizeof(g->stream[0]));

    g->streams = streams;
    for (int i = 0; i < streams; i++)
        g->stream[i] = (struct goal_stream){-1, -1};
    return g;
}

void goal_free(struct goal *g)
{
    free(g);
}

void goal_there(struct goal *g, int stream, int64_t end)
{
    g->stream[stream].end = end;
}

void goal_unknown(struct goal *g, int stream)
{
    g->stream[stream].end = END_UNKNOWN;
}

void goal_known(struct goal *g, int stream, int64_t end)
{
    if (g->stream[stream].end == END_UNKNOWN)
        g->stream[stream].end = end;
}

void goal_assigned(struct goal *g, int stream)
{
#ifdef SIM_BUG_END_MET_BEFORE
    if (g->stream[stream].read >= 0)
        return;
#endif
    g->stream[stream].read = -1;
}

void goal_met_end(struct goal *g, int stream, int64_t offset)
{
    g->stream[stream].read = offset;
}

bool goal_stream_reached(const struct goal *g, int stream, int64_t position, int held)
{
    const struct goal_stream *s = &g->stream[stream];
    return goal_reached(&(struct goal_progress){s->end, position, s->read, held});
}

int64_t goal_begin(int64_t committed, int64_t low, int64_t end)
{
    /* None, overtaken by retention, or of a topic made anew. */
    return committed < low || committed > end ? low : committed;
}

bool goal_reached(const struct goal_progress *p)
{
#ifdef SIM_BUG_READ_IS_DONE
    return p->position >= p->end || p->read >= p->end;
#endif
    return p->position >= p->end || (p->read >= p->end && p->held == 0);
}

static bool all_is_reached(const struct goal_run *r)
{
#ifdef SIM_BUG_DONE_BEFORE_ASSIGNED
    return r->unreached == 0;
#endif
    return r->assigned && r->apart == 0 && r->unread == 0 && r->unreached == 0;
}

enum goal_state goal_state(const struct goal_run *r)
{
    if (all_is_reached(r))
        return GOAL_DONE;
    if (r->events_max > 0 && r->completed >= r->events_max)
        return GOAL_ENOUGH;
    return r->time_max_ns > 0 && r->took_ns >= r->time_max_ns ? GOAL_OUT_OF_TIME : GOAL_AT_WORK;
}

int goal_exit_code(enum goal_state state)
{
    return state == GOAL_DONE || state == GOAL_ENOUGH ? 0 : 1;
}
