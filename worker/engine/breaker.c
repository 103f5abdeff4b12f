/* When to stop asking an API that is down, and when to ask again. */
#include "worker/engine/breaker.h"

#include <string.h>

#include "worker/engine/backoff.h"

void breaker_init(struct breaker *b, const struct engine_config *cfg, uint64_t *random)
{
    *b = (struct breaker){
        .cfg = cfg, .random = random, .state = BREAKER_CLOSED, .pause_ns = cfg->breaker_open_ns};
}

bool breaker_allows(const struct breaker *b)
{
    return b->state == BREAKER_CLOSED || (b->state == BREAKER_HALF_OPEN && !b->probe_out);
}

void breaker_probe_sent(struct breaker *b)
{
    ENSURE(b->state == BREAKER_HALF_OPEN && !b->probe_out);
    b->probe_out = true;
}

static void open_breaker(struct breaker *b, int64_t now)
{
    int64_t cap = b->cfg->breaker_open_cap_ns;
    int64_t pause = b->pause_ns < cap ? b->pause_ns : cap;

    b->state = BREAKER_OPEN;
    b->until_ns =
        now + backoff_between(b->random, pause - pause / 2, pause); /* replicas must not probe in step */
    b->pause_ns = pause > cap / 2 ? cap : pause * 2;
}

static void close_breaker(struct breaker *b)
{
    b->state = BREAKER_CLOSED;
    b->pause_ns = b->cfg->breaker_open_ns;
    b->consecutive = 0;
    memset(b->slots, 0, sizeof(b->slots));
}

static void slot_count(struct breaker *b, int64_t now, bool failed)
{
    int64_t width = b->cfg->breaker_window_ns / BREAKER_SLOTS + 1;
    int64_t number = now / width;
    struct breaker_slot *slot = &b->slots[number % BREAKER_SLOTS];

    if (slot->number != number)
        *slot = (struct breaker_slot){.number = number};
    slot->answers++;
    slot->failures += failed;
}

static bool share_is_over(const struct breaker *b, int64_t now)
{
    int64_t number = now / (b->cfg->breaker_window_ns / BREAKER_SLOTS + 1);
    int answers = 0, failures = 0;

    for (size_t i = 0; i < BREAKER_SLOTS; i++) {
        if (b->slots[i].number > number - BREAKER_SLOTS) {
            answers += b->slots[i].answers;
            failures += b->slots[i].failures;
        }
    }
    return answers >= b->cfg->breaker_share_min && failures >= b->cfg->breaker_share * answers;
}

static void report_closed(struct breaker *b, int64_t now, enum breaker_result result)
{
    bool failed = result == BREAKER_FAILED;

    b->consecutive = failed ? b->consecutive + 1 : 0;
    slot_count(b, now, failed);
    if (result == BREAKER_REFUSED ||
        (failed && (b->consecutive >= b->cfg->breaker_failures || share_is_over(b, now)))) {
        b->opened++;
        open_breaker(b, now);
    }
}

bool breaker_report(struct breaker *b, int64_t now, enum breaker_result result, bool probe)
{
    if (probe)
        b->probe_out = false;
    if (result == BREAKER_NO_ANSWER)
        return false;
    if (b->state == BREAKER_CLOSED) {
        report_closed(b, now, result);
        return false;
    }
    if (!probe)
        return false;
    if (result == BREAKER_SERVED) {
        close_breaker(b);
        return true;
    }
    open_breaker(b, now);
    return false;
}

void breaker_tick(struct breaker *b, int64_t now)
{
    if (b->state == BREAKER_OPEN && now >= b->until_ns)
        b->state = BREAKER_HALF_OPEN;
}
