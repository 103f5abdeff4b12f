/* W3C Trace Context: read a traceparent, and make the next one for an attempt or a new trace. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/compiler.h"
#include "common/event.h"

#define TRACE_PARENT_BYTES 56 /* 55 characters and NUL */

struct trace {
    unsigned char trace_id[16], span_id[8];
    unsigned char flags;
};

/* 0, or -1 when it is not a valid version-00 (or later, by the rule of the recommendation) traceparent. */
NODISCARD int trace_parse(struct slice text, struct trace *ret_trace);
void trace_start(struct trace *t);                             /* a new trace, sampled flag 0 */
void trace_child(const struct trace *parent, struct trace *t); /* same trace, new span id */
const char *trace_format(const struct trace *t, char out[TRACE_PARENT_BYTES]);
const char *trace_id_hex(const struct trace *t, char out[33]);
