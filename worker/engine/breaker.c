/* When to stop asking an API that is down, and when to ask again. */
#include "worker/engine/breaker.h"

#include <string.h>

#include "common/clock.h"
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

static void slot_count(struct breaker *b, int64_t now, enum breaker_result result)
{
    int64_t width = b->cfg->breaker_window_ns / BREAKER_SLOTS + 1;
    int64_t number = now / width;
    struct breaker_slot *slot = &b->slots[number % BREAKER_SLOTS];

    if (slot->number != number)
        *slot = (struct breaker_slot){.number = number};
    slot->answers++;
    slot->failures += result == BREAKER_FAILED;
    slot->slow += result == BREAKER_SLOW;
}

static bool share_is_over(const struct breaker *b, int64_t now)
{
    int64_t number = now / (b->cfg->breaker_window_ns / BREAKER_SLOTS + 1);
    int answers = 0, failures = 0, slow = 0;

    for (size_t i = 0; i < BREAKER_SLOTS; i++) {
        if (b->slots[i].number > number - BREAKER_SLOTS) {
            answers += b->slots[i].answers;
            failures += b->slots[i].failures;
            slow += b->slots[i].slow;
        }
    }
#ifdef SIM_BUG_NO_SHARE_TRIP
    failures = 0;
#endif
#ifdef SIM_BUG_NO_SLOW_TRIP
    slow = 0;
#endif
    /* What failed was slow as well, or will be: both shares are of the same trouble. */
    return answers >= b->cfg->breaker_share_min &&
           (failures >= b->cfg->breaker_share * answers ||
            (slow > 0 && slow + failures >= b->cfg->breaker_slow_share * answers));
}

static void report_closed(struct breaker *b, int64_t now, enum breaker_result result)
{
    bool bad = result == BREAKER_FAILED || result == BREAKER_SLOW;

    b->consecutive = result == BREAKER_FAILED ? b->consecutive + 1 : 0;
    slot_count(b, now, result);
#ifdef SIM_BUG_NEVER_OPENS
    return;
#endif
    if (b->override == BREAKER_KEPT_CLOSED)
        return;
    if (result == BREAKER_REFUSED ||
        (bad && (b->consecutive >= b->cfg->breaker_failures || share_is_over(b, now)))) {
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
    if (!probe || b->override == BREAKER_KEPT_OPEN)
        return false;
    if (result == BREAKER_SERVED) {
        close_breaker(b);
        return true;
    }
    open_breaker(b, now);
    return false;
}

bool breaker_command(struct breaker *b, int64_t now, enum breaker_override override)
{
    bool was_closed = b->state == BREAKER_CLOSED, was_kept_open = b->override == BREAKER_KEPT_OPEN;

    b->override = override;
    if (override == BREAKER_KEPT_OPEN) {
        b->opened += was_closed;
        b->state = BREAKER_OPEN;
        b->until_ns = CLOCK_NEVER;
    } else if (override == BREAKER_KEPT_CLOSED) {
        close_breaker(b);
        return !was_closed;
    } else if (was_kept_open) {
        b->until_ns = now;
        b->pause_ns = b->cfg->breaker_open_ns;
    }
    return false;
}

void breaker_tick(struct breaker *b, int64_t now)
{
    if (b->state == BREAKER_OPEN && now >= b->until_ns)
        b->state = BREAKER_HALF_OPEN;
}
