/* Records as the worker's tests need them: built from C strings, through the same functions as records off Kafka. */
#pragma once

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <string.h>

#include <cmocka.h>

#include "worker/worker_record.h"

struct header_text {
    const char *name, *value;
};

static inline struct slice text_slice(const char *s)
{
    return (struct slice){s, s ? strlen(s) : 0};
}

/* A target at work with its own rules only; free it. */
static inline struct targeting *targeting_of(const struct target *target)
{
    const struct option_list none = {NULL, 0};
    struct err err = {0};
    struct targeting *t = targeting_new(target, NULL, &none, &err);
    assert_non_null(t);
    return t;
}

/* As record_admit, by a target that is needed for this record only. */
static inline void admit_by(const struct target *target, struct record *rec, size_t payload_max,
                            struct event *ev)
{
    struct targeting *t = targeting_of(target);
    const struct intake in = {"tandem.orders", "", payload_max};
    record_admit(rec, t, &in, ev);
    targeting_free(t);
}

/* headers ends with a NULL name. */
static inline struct record *record_of(enum stream_kind kind, const char *key, const char *value,
                                       const struct header_text *headers)
{
    struct record_origin from = {.kind = kind,
                                 .stream = 6,
                                 .topic = kind == STREAM_REPLAY ? "tandem.crm.replay" : "tandem.orders",
                                 .partition = 3,
                                 .offset = 41,
                                 .leader_epoch = -1,
                                 .timestamp_ns = 1};
    size_t count = 0, bytes = 0;
    for (; headers[count].name; count++)
        bytes += strlen(headers[count].name) + text_slice(headers[count].value).len;
    struct record *rec = record_new(&from, text_slice(key), text_slice(value), count, bytes);
    assert_non_null(rec);
    for (size_t i = 0; i < count; i++)
        record_add_header(rec, text_slice(headers[i].name), text_slice(headers[i].value));
    return rec;
}

static const struct header_text order_placed[] = {
    {"ce_specversion", "1.0"},
    {"ce_id", "0190-e1"},
    {"ce_source", "orders"},
    {"ce_type", "order.placed"},
    {"content-type", "application/json"},
    {"traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
    {NULL, NULL},
};

/* The event of a C string key and value with that type. */
static inline void event_of(struct event *ev, const char *type, const char *key, const char *value)
{
    event_begin(ev, text_slice(key), text_slice(value));
    ev->id = SLICE_LIT("e1");
    ev->source = SLICE_LIT("orders");
    ev->type = text_slice(type);
}
