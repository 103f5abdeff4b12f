/* Text for terminals and JSON for programs: whatever bytes an event holds, neither is broken by them. */
#pragma once

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>

#include "common/event.h"
#include "worker/dlq/dlq_index.h"

/* Printable UTF-8 as it is, everything else as \xNN: an answer of a hostile API must not steer the operator's terminal. */
void dlq_print_bytes(FILE *out, struct slice s);
/* The same with line breaks and tabs kept. */
void dlq_print_lines(FILE *out, struct slice s);
void dlq_print_hex(FILE *out, struct slice s,
                   size_t max_bytes); /* offset, bytes, text; says what it left out */
void dlq_print_text(FILE *out, const struct dlq_text *t, const char *missing);
/* The same in a table: filled up with spaces to `width` characters. */
void dlq_print_column(FILE *out, const struct dlq_text *t, const char *missing, size_t width);

struct slice dlq_text_slice(const struct dlq_text *t); /* {NULL, 0} for NULL */

/*
 * New references; never NULL for lack of UTF-8: `name` gets text, or null with the bytes as base64 in `name`_base64.
 * Memory running out gives an incomplete object, which dlq_json_line refuses to print.
 */
void dlq_json_set(json_t *object, const char *name, struct slice s);
void dlq_json_int(json_t *object, const char *name, int64_t n);        /* negative: null */
void dlq_json_time(json_t *object, const char *name, int64_t wall_ns); /* 0: null */
json_t *dlq_json_entry(const char *destination, const struct dlq_entry *e);
/* Print object on a line of its own and release it. */
NODISCARD int dlq_json_line(FILE *out, json_t *object, struct err *err);
