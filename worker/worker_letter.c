/* Writes a dead letter's headers: where the event stood, why it failed, what was tried. */
#include "worker/worker_letter.h"

#include <stdarg.h>
#include <string.h>

#include "common/clock.h"

/* One letter being written; the first refusal of emit ends it. */
struct pen {
    letter_emit emit;
    void *context;
    int result;
};

static void pen_bytes(struct pen *p, const char *name, struct slice value)
{
    if (p->result == 0)
        p->result = p->emit(p->context, (struct slice){name, strlen(name)}, value);
}

static void pen_text(struct pen *p, const char *name, const char *text)
{
    pen_bytes(p, name, (struct slice){text, strlen(text)});
}

PRINTF_LIKE(3, 4) static void pen_printf(struct pen *p, const char *name, const char *fmt, ...)
{
    char text[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    pen_text(p, name, text);
}

static void write_own_headers(struct pen *p, const struct record *rec)
{
    for (size_t i = 0; i < rec->header_count && p->result == 0; i++)
        if (!record_header_is_ours(rec->headers[i].name))
            p->result = p->emit(p->context, rec->headers[i].name, rec->headers[i].value);
}

static void write_message(struct pen *p, const struct record *rec, const struct delivery_view *v)
{
    const char *why = rec->poison ? rec->poison : reason_prose(v->reason);
    if (rec->poison && v->reason != REASON_PARKED_BEHIND)
        pen_text(p, "__dlq.errors.message", why);
    else if (v->status)
        pen_printf(p, "__dlq.errors.message", "%s; the last answer was HTTP %d", reason_prose(v->reason),
                   v->status);
    else if (v->attempt && v->transport != TRANSPORT_OK)
        pen_printf(p, "__dlq.errors.message", "%s; the last attempt ended in %s", reason_prose(v->reason),
                   transport_name(v->transport));
    else
        pen_text(p, "__dlq.errors.message", reason_prose(v->reason));
}

int letter_attempts(const struct delivery_view *v)
{
    return v->attempt > v->attempts_counted ? v->attempt : v->attempts_counted;
}

/* The names of KIP-1191, which generic tools read. */
static void write_errors(struct pen *p, const struct record *rec, const struct delivery_view *v,
                         const struct letter_facts *f)
{
    pen_bytes(p, "__dlq.errors.topic", rec->origin.topic);
    pen_printf(p, "__dlq.errors.partition", "%lld", (long long)rec->origin.partition);
    pen_printf(p, "__dlq.errors.offset", "%lld", (long long)rec->origin.offset);
    pen_text(p, "__dlq.errors.group", f->group);
    pen_printf(p, "__dlq.errors.delivery.count", "%lld",
               (long long)(rec->origin.attempts + letter_attempts(v)));
    write_message(p, rec, v);
}

static void write_date(struct pen *p, const char *name, int64_t at_ns, const struct letter_facts *f)
{
    char text[CLOCK_RFC3339_BYTES];
    if (at_ns)
        pen_text(p, name, clock_rfc3339(f->wall_ns - (f->now_ns - at_ns), text));
}

static void write_attempts(struct pen *p, const struct record *rec, const struct delivery_view *v,
                           const struct letter_facts *f)
{
    if (v->status)
        pen_printf(p, "x-dlq-http-status", "%d", v->status);
    if (v->attempt && v->transport != TRANSPORT_OK)
        pen_text(p, "x-dlq-curl-code", transport_name(v->transport));
    if (rec->answer.len)
        pen_bytes(p, "x-dlq-response-body", (struct slice){rec->answer.data, rec->answer.len});
    write_date(p, "x-dlq-first-attempt-at", v->first_attempt_ns, f);
    write_date(p, "x-dlq-last-attempt-at", v->last_attempt_ns, f);
    pen_printf(p, "x-dlq-attempts", "%d", letter_attempts(v));
    pen_text(p, "x-dlq-ambiguous", v->ambiguous || rec->origin.ambiguous ? "true" : "false");
}

int letter_headers(const struct record *rec, const struct delivery_view *v, const struct letter_facts *f,
                   letter_emit emit, void *context)
{
    struct pen pen = {.emit = emit, .context = context};
    struct pen *p = &pen;

    write_own_headers(p, rec);
    write_errors(p, rec, v, f);
    pen_text(p, "x-dlq-version", "1");
    pen_printf(p, "x-dlq-id", "%s/%.*s/%lld/%lld/%d", f->destination, (int)rec->origin.topic.len,
               rec->origin.topic.data, (long long)rec->origin.partition, (long long)rec->origin.offset,
               rec->origin.replay_count);
    pen_bytes(p, "x-dlq-event-id", rec->event_id);
    pen_text(p, "x-dlq-destination", f->destination);
    pen_text(p, "x-dlq-reason", reason_name(v->reason));
    write_attempts(p, rec, v, f);
    if (v->parked_behind.data)
        pen_bytes(p, "x-dlq-parked-behind", v->parked_behind);
    pen_text(p, "x-dlq-worker", f->worker);
    pen_printf(p, "x-dlq-replay-count", "%d", rec->origin.replay_count);
    if (rec->origin.replay_id.data)
        pen_bytes(p, "x-dlq-replay-id", rec->origin.replay_id);
    return p->result;
}
