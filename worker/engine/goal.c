/* Decides what a one-shot run has to do, and when it is over. */
#include "worker/engine/goal.h"

int64_t goal_begin(int64_t committed, int64_t low, int64_t end)
{
    /* None, overtaken by retention, or of a topic made anew. */
    return committed < low || committed > end ? low : committed;
}

bool goal_reached(const struct goal_progress *p)
{
    return p->position >= p->end || (p->read >= p->end && p->held == 0);
}

enum goal_state goal_state(const struct goal_run *r)
{
    if (r->all_reached)
        return GOAL_DONE;
    if (r->events_max > 0 && r->completed >= r->events_max)
        return GOAL_ENOUGH;
    return r->time_max_ns > 0 && r->took_ns >= r->time_max_ns ? GOAL_OUT_OF_TIME : GOAL_AT_WORK;
}

int goal_exit_code(enum goal_state state)
{
    return state == GOAL_DONE || state == GOAL_ENOUGH ? 0 : 1;
}
