/* An event as it travels in Kafka: CloudEvents 1.0 binary mode, seen through borrowed bytes. No foreign library. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/compiler.h"
#include "common/err.h"

/* Bytes owned by somebody else; data NULL means "not there" (a null key, a tombstone), len 0 with data means empty. */
struct slice {
    const char *data;
    size_t len;
};
#define SLICE_LIT(s_) ((struct slice){(s_), sizeof(s_) - 1})
bool slice_is(struct slice s, const char *text); /* exact comparison with a C string */
bool slice_equal(struct slice a, struct slice b);

struct event_header {
    struct slice name, value; /* value.data NULL: a null header value */
};

#define EVENT_HEADERS_MAX 256        /* a record with more headers is poison: "too-many-headers" */
#define EVENT_HEADER_BYTES_MAX 65536 /* names and values together: "headers-too-large" */
#define EVENT_ATTRIBUTE_BYTES_MAX 1024

/* All slices borrow from the Kafka message; valid until it is released. */
struct event {
    struct slice key, value;
    /* The ce_* headers and these two; data NULL when missing. */
    struct slice id, source, type, time, subject, content_type, traceparent;
    struct event_header headers[EVENT_HEADERS_MAX]; /* all of them, also the ones above, in record order */
    size_t header_count, header_bytes;
};

/* Start an empty event over key and value. */
void event_begin(struct event *ev, struct slice key, struct slice value);
/* Add one header as it comes off the record. -1: over a limit (PERMANENT, message names the limit). */
NODISCARD int event_add_header(struct event *ev, struct slice name, struct slice value, struct err *err);
/*
 * After the last header: is it a CloudEvent that Tandem can deliver? -1 with PERMANENT when ce_specversion is not 1.x,
 * or ce_id, ce_source or ce_type is missing, empty, over EVENT_ATTRIBUTE_BYTES_MAX, not UTF-8, or carries control characters;
 * ce_time and content-type may be missing, but not break those rules: all of these become HTTP headers as they are.
 * CloudEvents 1.0 (Kafka protocol binding).
 */
NODISCARD int event_check(const struct event *ev, struct err *err);
/* The value of the last header of that name, or {NULL, 0}. Names compare case-sensitively, as Kafka does. */
struct slice event_header(const struct event *ev, const char *name);
