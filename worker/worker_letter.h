/* What a dead letter says: its headers, from the record, the engine's view and the worker's names. Format: docs/formats.md. */
#pragma once

#include "worker/worker_record.h"

/* Room for what a dead letter, or its replay, has besides the record: five texts of 1 KiB (message, answer, ids), names of 249 bytes, and the headers' own names. */
#define LETTER_HEADERS_BYTES_MAX 8192

struct letter_facts {
    const char *destination, *group, *worker; /* "inventory", "tandem-inventory", client id */
    int64_t now_ns,
        wall_ns; /* the same moment by both clocks: the engine's times are turned into dates with it */
};
/* Requests made in this round, as far as anybody knows: those before a restart are known by what was counted of them. */
int letter_attempts(const struct delivery_view *v);
/* Called once for each header, in order; value.data NULL: a null value. Returns 0, or -1 to stop. */
typedef int (*letter_emit)(void *context, struct slice name, struct slice value);
/* The record's own headers first, earlier __dlq.* and x-dlq-* left out, then ours, each once. -1 when emit did. */
NODISCARD int letter_headers(const struct record *rec, const struct delivery_view *v,
                             const struct letter_facts *f, letter_emit emit, void *context);
