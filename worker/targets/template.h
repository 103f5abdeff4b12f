/*
 * Text with places for what an event has: "/v1/customers/{data/customer}/orders/{key}".
 *
 *     {key} {id} {type} {source} {subject} {time}     of the event
 *     {header NAME}                                   a header of its record, byte for byte
 *     {data/POINTER}                                  a string, number (as it is written), true or false of its JSON payload (RFC 6901)
 *     {{ }}                                           a brace
 */
#pragma once

#include "common/buf.h"
#include "common/event.h"
#include "worker/targets/json_source.h"

#define TEMPLATE_BYTES_MAX 2048
#define TEMPLATE_PARTS_MAX 32

/* An event and its payload, which is read as JSON when a template first asks for it. Start with {.ev = ev}. */
struct facts {
    const struct event *ev;
    struct json_source data;
};
void facts_done(struct facts *f);
/* The payload; NULL with err (PERMANENT): it is not JSON, or names something twice. Borrowed. */
const struct json_source *facts_data(struct facts *f, struct err *err);

struct template;
/* NULL: PERMANENT, what is wrong with the text. */
struct template *template_parse(const char *text, struct err *err);
void template_free(struct template *t); /* NULL-safe */

/*
 * Can it be a path and a query? It begins with "/", its own text has no character that neither can have (RFC 3986), and no segment of it is
 * empty, "." or "..", but for an empty last one, as of "/v1/orders/".
 */
NODISCARD int template_check_path(const struct template *t, struct err *err);

enum template_result {
    TEMPLATE_DONE,
    TEMPLATE_MISSING, /* the event lacks what a place names: err says which */
    TEMPLATE_FAILED   /* it does not fit, the payload is not JSON, or it would name another resource */
};
/* Append the text with the places filled in. */
enum template_result template_fill(const struct template *t, struct facts *f, struct buf *out,
                                   struct err *err);
/*
 * The same as path and query of a URL: what is filled in is percent-encoded, and no segment becomes empty, "." or "..". A path whose own text
 * ends with "/" keeps it.
 */
enum template_result template_fill_path(const struct template *t, struct facts *f, struct buf *out,
                                        struct err *err);
