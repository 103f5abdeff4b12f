/* Writes what a running worker does, for a person and for a program. */
#include "worker/worker_status.h"

#include <jansson.h>
#include <string.h>

#include "common/clock.h"
#include "common/show.h"

/* ---- figures ------------------------------------------------------------------------------------------------------------ */

void status_look(struct status_rate *r, int64_t now, int64_t delivered)
{
    r->looks[r->next].at_ns = now;
    r->looks[r->next].delivered = delivered;
    r->next = (r->next + 1) % STATUS_LOOKS;
    r->count += r->count < STATUS_LOOKS;
}

static double rate_of(const struct status_facts *f)
{
    const struct status_rate *r = f->rate;
    int oldest = r->count < STATUS_LOOKS ? 0 : r->next;
    int64_t took = r->count ? f->now - r->looks[oldest].at_ns : 0;

    if (took <= 0)
        return 0;
    return (double)(f->counts->delivered - r->looks[oldest].delivered) * (double)NS_PER_S / (double)took;
}

static int64_t ms_until(int64_t at_ns, int64_t now)
{
    return at_ns > now ? (at_ns - now + NS_PER_MS - 1) / NS_PER_MS : 0;
}

/* Nothing is under way, and what is due may not be sent: the repetitions, and what their keys keep back. */
static bool all_wait_for_budget(const struct engine_counts *n)
{
    return n->over_budget > 0 && n->in_flight == 0;
}

static const char *state_of(const struct status_facts *f)
{
    if (!f->ready)
        return "not ready";
    if (f->counts->on_hold)
        return "paused";
    if (f->counts->breaker != BREAKER_CLOSED)
        return "not served";
    return f->counts->paused_until_ns || all_wait_for_budget(f->counts) ? "waiting" : "running";
}

static const char *breaker_of(const struct engine_counts *n)
{
    static const char *const names[] = {"closed", "open", "half-open"};
    return names[n->breaker];
}

static const char *override_of(const struct engine_counts *n)
{
    static const char *const names[] = {"auto", "open", "closed"};
    return names[n->breaker_override];
}

/* ---- a screen ----------------------------------------------------------------------------------------------------------- */

static void screen_state(const struct status_facts *f, struct buf *out)
{
    const struct engine_counts *n = f->counts;

    (void)buf_printf(out, "%s: %s\n", f->w->destination, state_of(f));
    (void)buf_printf(out, "  breaker       %s", breaker_of(n));
    if (n->breaker_until_ns)
        (void)buf_printf(out, ", a probe in %lld ms", (long long)ms_until(n->breaker_until_ns, f->now));
    (void)buf_printf(out, "%s%s\n", n->breaker_override == BREAKER_AUTO ? "" : ", by the operator: ",
                     n->breaker_override == BREAKER_AUTO ? "" : override_of(n));
    if (n->paused_until_ns)
        (void)buf_printf(out, "  API's pause   %lld ms more\n",
                         (long long)ms_until(n->paused_until_ns, f->now));
    if (all_wait_for_budget(n))
        (void)buf_printf(out, "  retry budget  spent: what is due waits for it (retry_share, retry_min)\n");
    for (const char *line = f->reasons; *line;) {
        size_t len = strcspn(line, "\n");
        (void)buf_printf(out, "  %.*s\n", (int)len, line);
        line += len + (line[len] == '\n');
    }
}

static void screen_figures(const struct status_facts *f, struct buf *out)
{
    const struct engine_counts *n = f->counts;

    (void)buf_printf(out, "  in flight     %-8lld of %d\n", (long long)n->in_flight, n->limit);
    (void)buf_printf(out, "  held          %-8lld %lld byte%s\n", (long long)n->held,
                     (long long)n->held_bytes, show_plural(n->held_bytes));
    (void)buf_printf(out, "  waiting       %-8lld for their next attempt, %lld for the retry budget\n",
                     (long long)n->backing_off, (long long)n->over_budget);
    (void)buf_printf(out, "  delivered     %-8lld %.1f a second over %d s; %lld retried, %lld skipped\n",
                     (long long)n->delivered, rate_of(f), STATUS_SECONDS, (long long)n->retried,
                     (long long)n->skipped);
    (void)buf_printf(out, "  parked keys   %d\n", n->parked_keys);
    (void)buf_printf(out, "  dead letters  %lld\n", (long long)n->dead_lettered);
    for (int i = 0; i < REASON_COUNT; i++)
        if (n->dead_lettered_by[i])
            (void)buf_printf(out, "    %-20s %lld\n", reason_name((enum reason)i),
                             (long long)n->dead_lettered_by[i]);
    (void)buf_printf(out, "  last trouble  %s\n", worker_http_trouble(f->w->http));
}

static void screen_topic(const struct status_facts *f, const char *topic, struct buf *out)
{
    struct consume_look p;
    int64_t lag = 0;
    int count = 0;

    for (int i = 0; worker_consume_look(f->w->consume, i, &p); i++)
        if (p.topic == topic) {
            lag += p.lag > 0 ? p.lag : 0;
            count++;
        }
    (void)buf_printf(out, "  %s: %d of %d partition%s, lag %lld\n", topic, count, f->w->partitions,
                     show_plural(f->w->partitions), (long long)lag);
    for (int i = 0; worker_consume_look(f->w->consume, i, &p); i++)
        if (p.topic == topic && p.lag >= 0)
            (void)buf_printf(out, "    %4d  at %lld, lag %lld\n", p.partition, (long long)p.position,
                             (long long)p.lag);
        else if (p.topic == topic)
            (void)buf_printf(out, "    %4d  nothing read yet\n", p.partition);
}

static void screen_partitions(const struct status_facts *f, struct buf *out)
{
    for (int i = 0; i < f->w->sources.count; i++)
        screen_topic(f, f->w->sources.topics[i], out);
}

void status_screen(const struct status_facts *f, struct buf *out)
{
    screen_state(f, out);
    screen_figures(f, out);
    screen_partitions(f, out);
}

/* ---- JSON --------------------------------------------------------------------------------------------------------------- */

/* What is from outside may be no UTF-8: then it says so. */
static json_t *text_of(const char *text)
{
    json_t *s = json_string(text);
    return s ? s : json_string("(not UTF-8)");
}

static json_t *json_partitions(const struct status_facts *f)
{
    json_t *list = json_array();
    struct consume_look p;

    for (int i = 0; worker_consume_look(f->w->consume, i, &p); i++) {
        json_t *one = json_pack("{s:s, s:i}", "topic", p.topic, "partition", p.partition);
        json_object_set_new(one, "position", p.position < 0 ? json_null() : json_integer(p.position));
        json_object_set_new(one, "lag", p.lag < 0 ? json_null() : json_integer(p.lag));
        json_array_append_new(list, one);
    }
    return list;
}

static json_t *json_waiting(const struct status_facts *f)
{
    json_t *list = json_array();
    struct consume_wait wait;

    for (int i = 0; worker_consume_wait(f->w->consume, i, &wait); i++)
        json_array_append_new(list, json_pack("{s:i, s:s, s:s}", "partition", wait.number, "topic",
                                              wait.topic, "error", wait.error));
    return list;
}

static json_t *json_letters(const struct engine_counts *n)
{
    json_t *by = json_object();

    for (int i = 0; i < REASON_COUNT; i++)
        if (n->dead_lettered_by[i])
            json_object_set_new(by, reason_name((enum reason)i), json_integer(n->dead_lettered_by[i]));
    return by;
}

static json_t *json_figures(const struct status_facts *f)
{
    const struct engine_counts *n = f->counts;
    const struct {
        const char *name;
        int64_t value;
    } figures[] = {
        {"in_flight", n->in_flight},
        {"in_flight_limit", n->limit},
        {"held", n->held},
        {"held_bytes", n->held_bytes},
        {"backing_off", n->backing_off},
        {"over_retry_budget", n->over_budget},
        {"parked_keys", n->parked_keys},
        {"delivered", n->delivered},
        {"duplicate_ok", n->duplicate_ok},
        {"skipped", n->skipped},
        {"retried", n->retried},
        {"dead_letters", n->dead_lettered},
        {"deleted", f->w->deleted},
        {"breaker_wait_ms", n->breaker_until_ns ? ms_until(n->breaker_until_ns, f->now) : 0},
        {"pause_wait_ms", n->paused_until_ns ? ms_until(n->paused_until_ns, f->now) : 0},
    };
    json_t *all = json_object();

    for (size_t i = 0; i < ARRAY_LEN(figures); i++)
        json_object_set_new(all, figures[i].name, json_integer(figures[i].value));
    return all;
}

void status_json(const struct status_facts *f, struct buf *out)
{
    json_t *all = json_figures(f);

    json_object_set_new(all, "version", json_integer(1));
    json_object_set_new(all, "destination", text_of(f->w->destination));
    json_object_set_new(all, "group", text_of(f->w->opt.group));
    json_object_set_new(all, "state", json_string(state_of(f)));
    json_object_set_new(all, "ready", json_boolean(f->ready));
    json_object_set_new(all, "paused", json_boolean(f->counts->on_hold));
    json_object_set_new(all, "breaker", json_string(breaker_of(f->counts)));
    json_object_set_new(all, "breaker_override", json_string(override_of(f->counts)));
    json_object_set_new(all, "delivered_per_second", json_real(rate_of(f)));
    json_object_set_new(all, "dead_letters_by_reason", json_letters(f->counts));
    json_object_set_new(all, "last_trouble", text_of(worker_http_trouble(f->w->http)));
    json_object_set_new(all, "partitions", json_partitions(f));
    json_object_set_new(all, "waiting", json_waiting(f));
    char *text = json_dumps(all, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(6));
    ENSURE(text);
    (void)buf_printf(out, "%s\n", text);
    free(text);
    json_decref(all);
}
