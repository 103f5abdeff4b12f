/*
 * A JSON document whose numbers stay as they are written: what is sent on, or compared, has to be the text of the source. jansson keeps an
 * integer in 64 bits and takes a document with a larger one for none, as with 1e400; and 2.14 writes 19.99 as 19.989999999999998
 * (github.com/akheron/jansson #680).
 */
#pragma once

#include "common/buf.h"
#include "common/event.h"

struct json_t;

struct json_source {
    struct slice text; /* borrowed */
    struct json_t *
        root; /* in it a number is the offset of its text, an integer: only for the functions below. NULL: nothing */
};
/* flags: of jansson, like JSON_REJECT_DUPLICATES. -1 PERMANENT: what is wrong with the text; then there is no root. */
NODISCARD int json_source_read(struct json_source *s, struct slice text, size_t flags, struct err *err);
void json_source_done(struct json_source *s);

/* A string, a number as it is written, true or false; data NULL: null, an object, an array or nothing. Borrowed from s. */
struct slice json_source_scalar(const struct json_source *s, const struct json_t *value);
/* Append a value of s as JSON without white space, its numbers as they are written. -1: it does not fit, and nothing was appended. */
int json_source_write(const struct json_source *s, const struct json_t *value, struct buf *out);
