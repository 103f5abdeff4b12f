/* A token bucket for requests and one for bytes. */
#include "worker/engine/pace.h"

#include "common/clock.h"

void pace_init(struct pace *p, int64_t requests, int64_t bytes)
{
    *p = (struct pace){.requests = requests, .bytes = bytes};
}

int64_t pace_due(const struct pace *p)
{
    int64_t paid = p->requests_paid_ns > p->bytes_paid_ns ? p->requests_paid_ns : p->bytes_paid_ns;
    return paid - PACE_BURST_NS;
}

/* A request larger than the bucket goes once the bucket is full, and the ones behind it wait for its debt. */
static int64_t paid_after(int64_t paid_ns, int64_t now, size_t count, int64_t per_second)
{
    if (per_second <= 0)
        return 0;
    double ns = (double)count * (double)NS_PER_S / (double)per_second;
    return (paid_ns > now ? paid_ns : now) + (int64_t)ns;
}

void pace_spend(struct pace *p, int64_t now, size_t bytes)
{
    p->requests_paid_ns = paid_after(p->requests_paid_ns, now, 1, p->requests);
    p->bytes_paid_ns = paid_after(p->bytes_paid_ns, now, bytes, p->bytes);
}
