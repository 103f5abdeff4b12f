/* Says when a group's parked keys are read, also of a log that became shorter meanwhile. */
#include "worker/engine/reading.h"

#define NOT_STOPPED (-1)

void reading_begin(struct reading *r, int64_t end)
{
    *r = (struct reading){.on = true, .to = end, .stopped = NOT_STOPPED};
}

void reading_give_up(struct reading *r)
{
    *r = (struct reading){0};
}

bool reading_came(struct reading *r, int64_t offset)
{
    if (!r->on)
        return false;
    r->stopped = offset;
    r->on = offset < r->to;
    return !r->on;
}

bool reading_stopped(const struct reading *r)
{
    return r->on && r->stopped != NOT_STOPPED;
}

bool reading_ends(struct reading *r, int64_t end)
{
    if (!reading_stopped(r))
        return false;
    if (end < r->to)
        r->to = end;
    r->on = r->stopped < r->to;
    return !r->on;
}
