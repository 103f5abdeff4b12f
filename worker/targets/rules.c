/* Finds the first rule that an answer fits. */
#include "worker/targets/rules.h"

#include <jansson.h>
#include <string.h>

#include "worker/targets/json_pointer.h"
#include "worker/targets/json_source.h"
#include "worker/targets/rules_room.h"

struct rules {
    struct rule *items;
    size_t count;
};

struct rules *rules_new(void)
{
    struct rules *r = calloc(1, sizeof *r);
    ENSURE(r);
    return r;
}

void rules_free(struct rules *r)
{
    if (!r)
        return;
    for (size_t i = 0; i < r->count; i++)
        rule_done(&r->items[i]);
    free(r->items);
    free(r);
}

int rules_add(struct rules *r, const char *line, struct err *err)
{
    struct rule rule = {.condition_count = 0};

    if (r->count == RULES_MAX)
        return err_set(err, ERR_PERMANENT, "more than %d rules", RULES_MAX);
    if (rule_parse(line, &rule, err) < 0) {
        rule_done(&rule);
        return -1;
    }
    r->items = reallocarray(r->items, r->count + 1, sizeof *r->items);
    ENSURE(r->items);
    r->items[r->count++] = rule;
    return 0;
}

/* ---- could one match? ------------------------------------------------------------------------------------------------------- */

static bool fits_end(const struct rule *r, enum transport transport, int status)
{
    bool wants_failure = false;
    for (size_t i = 0; i < r->condition_count; i++) {
        const struct condition *c = &r->conditions[i];
        if (c->kind == CONDITION_STATUS && (transport != TRANSPORT_OK || status < c->from || status > c->to))
            return false;
        if (c->kind == CONDITION_TRANSPORT && transport != c->transport)
            return false;
        wants_failure |= c->kind == CONDITION_TRANSPORT;
    }
    return wants_failure || transport == TRANSPORT_OK;
}

bool rules_concern(const struct rules *r, enum transport transport, int status)
{
    for (size_t i = 0; i < r->count; i++)
        if (fits_end(&r->items[i], transport, status))
            return true;
    return false;
}

bool rules_want_headers(const struct rules *r)
{
    for (size_t i = 0; i < r->count; i++)
        for (size_t c = 0; c < r->items[i].condition_count; c++)
            if (r->items[i].conditions[c].kind == CONDITION_HEADER)
                return true;
    return false;
}

/* ---- does it match? --------------------------------------------------------------------------------------------------------- */

/* An answer's body as JSON, read when a rule first asks for it. */
struct reading {
    const struct answer *answer;
    struct json_source body;
    bool tried;
};

/* NULL: it is none. */
static const json_t *reading_body(struct reading *reading)
{
    bool good =
        reading->tried || json_source_read(&reading->body, reading->answer->body, JSON_DECODE_ANY, NULL) == 0;
    reading->tried = true;
    return good ? reading->body.root : NULL;
}

static bool fits_header(const struct condition *c, const struct answer *a)
{
    for (const char *from = NULL;;) {
        struct slice value = answer_header(a, c->name, from);
        if (!value.data || !c->value || slice_is(value, c->value))
            return value.data != NULL;
        from = value.data + value.len; /* the rest of its line is no header */
        const char *line_end = memchr(from, '\n', (size_t)(a->headers.data + a->headers.len - from));
        if (!line_end)
            return false;
        from = line_end + 1;
    }
}

static bool fits_body(const struct condition *c, struct reading *reading)
{
    const json_t *found = json_pointer_get(reading_body(reading), c->name);
    if (!found || !c->value)
        return found != NULL;
    if (json_is_null(found))
        return strcmp(c->value, "null") == 0;
    return slice_is(json_source_scalar(&reading->body, found), c->value);
}

static bool fits_type(const struct condition *c, struct slice type)
{
    size_t len = strlen(c->name);
    if (len == 0 || c->name[len - 1] != '*')
        return slice_is(type, c->name);
    return type.len >= len - 1 && memcmp(type.data, c->name, len - 1) == 0;
}

static bool fits(const struct condition *c, struct reading *reading)
{
    const struct answer *a = reading->answer;
    switch (c->kind) {
    case CONDITION_STATUS:
    case CONDITION_TRANSPORT:
        return true; /* fits_end */
    case CONDITION_HEADER:
        return fits_header(c, a);
    case CONDITION_BODY:
        return fits_body(c, reading);
    case CONDITION_TYPE:
        return fits_type(c, a->ev->type);
    case CONDITION_METHOD:
        return strcmp(c->name, a->req->method) == 0;
    case CONDITION_IF_MATCH:
        return a->req->if_match;
    case CONDITION_IF_NONE_MATCH:
        return a->req->if_none_match;
    case CONDITION_REPEATED:
        return a->repeated;
    }
    ENSURE(!"a condition");
    return false;
}

static bool rule_fits(const struct rule *r, struct reading *reading)
{
    if (!fits_end(r, reading->answer->transport, reading->answer->status))
        return false;
    for (size_t i = 0; i < r->condition_count; i++)
        if (!fits(&r->conditions[i], reading))
            return false;
    return true;
}

bool rules_decide(const struct rules *r, const struct answer *a, struct ruling *ret)
{
    struct reading reading = {.answer = a};
    bool found = false;

    for (size_t i = 0; i < r->count && !found; i++) {
        found = rule_fits(&r->items[i], &reading);
        if (found)
            *ret = r->items[i].ruling;
    }
    json_source_done(&reading.body);
    return found;
}
