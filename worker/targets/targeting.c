/* A target at work: asks whoever may say what an answer means, one after the other. */
#include <string.h>
#include <strings.h>

#include "worker/targets/rules.h"
#include "worker/targets/target.h"

/*
 * What goes with conditional requests and with what is there or gone already, at every API (decision D31).
 * 404, 410 to a DELETE: it is gone, which is what was asked for (RFC 9110 9.3.5).
 * 412 to If-None-Match: it is there. 412 to If-Match after an attempt that may have been executed: that attempt changed the tag. Any other
 * 412 or 409 says that the API's state is another one than the event was made for: a person has to look.
 * 409 to such a repetition: the first one is still being worked on (draft-ietf-httpapi-idempotency-key-header 2.7).
 */
static const char *const COMMON[] = {
    "method DELETE and 404 -> duplicate-ok",
    "method DELETE and 410 -> duplicate-ok",
    "412 and if-none-match -> duplicate-ok",
    "412 and if-match and repeated -> duplicate-ok",
    "412 -> poison:conflict",
    "409 and repeated -> retry",
    "409 -> poison:conflict",
};

struct targeting {
    const struct target *target;
    void *context;
    bool judges;
    struct rules *extra, *own; /* before and after the target's judge */
};

static int targeting_fill(struct targeting *t, const struct option_list *extra, struct err *err)
{
    for (size_t i = 0; i < extra->count; i++)
        if (rules_add(t->extra, extra->items[i], err) < 0)
            return -1;
    for (size_t i = 0; i < t->target->rule_count; i++)
        if (rules_add(t->own, t->target->rules[i], err) < 0)
            return -1;
    for (size_t i = 0; i < ARRAY_LEN(COMMON); i++)
        if (rules_add(t->own, COMMON[i], err) < 0)
            return -1;
    return 0;
}

struct targeting *targeting_new(const struct target *target, const void *options,
                                const struct option_list *extra, struct err *err)
{
    struct targeting *t = calloc(1, sizeof *t);
    ENSURE(t);
    t->target = target;
    t->extra = rules_new();
    t->own = rules_new();
    if (targeting_fill(t, extra, err) < 0 || (target->open && target->open(options, &t->context, err) < 0)) {
        targeting_free(t);
        return NULL;
    }
    t->judges = target->judge && (!target->judges || target->judges(t->context));
    return t;
}

void targeting_free(struct targeting *t)
{
    if (!t)
        return;
    if (t->context)
        t->target->close(t->context);
    rules_free(t->extra);
    rules_free(t->own);
    free(t);
}

enum target_answer targeting_map(struct targeting *t, const struct event *ev, struct request *req,
                                 enum reason *ret_reason, struct err *err)
{
    return t->target->map(t->context, ev, req, ret_reason, err);
}

/* Most answers are successes that nobody has a rule for: they cost nothing here. */
bool targeting_is_plain(const struct targeting *t, enum transport transport, int status)
{
    return !(transport == TRANSPORT_OK && t->judges) && !rules_concern(t->extra, transport, status) &&
           !rules_concern(t->own, transport, status);
}

bool targeting_wants_headers(const struct targeting *t)
{
    return t->judges || rules_want_headers(t->extra) || rules_want_headers(t->own);
}

bool targeting_judge(struct targeting *t, const struct answer *a, struct ruling *ret, struct err *err)
{
    if (rules_decide(t->extra, a, ret))
        return true;
    if (a->transport == TRANSPORT_OK && t->judges && t->target->judge(t->context, a, ret, err))
        return true;
    if (err && err->kind == ERR_FATAL)
        return false;
    return rules_decide(t->own, a, ret);
}

/* ---- headers of an answer -------------------------------------------------------------------------------------------------- */

/* Its end first: an empty value then stays on its own line, and who looks on from there finds the next one. */
static struct slice trimmed(const char *from, const char *to)
{
    while (to > from && strchr(" \t\r\n", to[-1]))
        to--;
    while (from < to && strchr(" \t\r\n", *from))
        from++;
    return (struct slice){from, (size_t)(to - from)};
}

struct slice answer_header(const struct answer *a, const char *name, const char *from)
{
    const char *end = a->headers.data + a->headers.len;
    size_t len = strlen(name);

    for (const char *line = from ? from : a->headers.data; line && line < end;) {
        const char *stop = memchr(line, '\n', (size_t)(end - line));
        const char *next = stop ? stop + 1 : end;
        if ((size_t)(next - line) > len && line[len] == ':' && strncasecmp(line, name, len) == 0)
            return trimmed(line + len + 1, next);
        line = next;
    }
    return (struct slice){NULL, 0};
}
