/* Counts how long this relay may still work before it must have heard from the database again. */
#include "producer/relay/core/lease.h"

#include "common/clock.h"
#include "common/compiler.h"

void lease_init(struct lease *l, int64_t ttl_ns)
{
    ENSURE(ttl_ns > 0);
    *l = (struct lease){.ttl_ns = ttl_ns};
}

void lease_asked(struct lease *l, int64_t now)
{
    l->sent_ns = now;
}

void lease_taken(struct lease *l, int64_t epoch)
{
    l->held = true;
    l->epoch = epoch;
    lease_renewed(l, false);
}

void lease_idles(struct lease *l)
{
    l->idle = true;
}

void lease_renewed(struct lease *l, bool idle)
{
    ENSURE(l->held);
    l->idle = idle;
    l->until_ns = l->sent_ns + l->ttl_ns;
}

void lease_lost(struct lease *l)
{
    l->held = l->idle = false;
    l->until_ns = 0;
}

bool lease_valid(const struct lease *l, int64_t now)
{
    return l->held && !l->idle && now < l->until_ns;
}

int64_t lease_patience_ns(const struct lease *l)
{
    return l->ttl_ns / 8;
}

bool lease_lets_publish(const struct lease *l, int64_t now)
{
    return lease_valid(l, now + lease_patience_ns(l));
}

int64_t lease_over_at(const struct lease *l)
{
    return l->held && !l->idle ? l->until_ns : CLOCK_NEVER;
}

int64_t lease_renew_by(const struct lease *l)
{
    return l->idle ? CLOCK_NEVER : l->until_ns - l->ttl_ns / 3;
}

int64_t lease_renew_at(const struct lease *l)
{
    return l->idle ? CLOCK_NEVER : l->until_ns - l->ttl_ns + l->ttl_ns / 3;
}
