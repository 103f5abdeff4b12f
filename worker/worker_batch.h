/*
 * Several events in one request: what may go together, how it is written, and what an answer says of each. Knows no HTTP library.
 *
 * Two forms (option batch_format). array: a JSON array of the bodies, application/json. cloudevents: the CloudEvents 1.0 JSON batch format,
 * each event with its attributes and its body as data (data_base64 where it is no JSON).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/compiler.h"
#include "common/err.h"
#include "worker/worker_record.h"

enum batch_format { BATCH_ARRAY, BATCH_CLOUDEVENTS };

/* ---- what may go together ------------------------------------------------------------------------------------------- */

/*
 * The mappings of the records held: equal method, path and headers are one kind. Beyond ENGINE_BATCH_KINDS at once, each event is a kind of
 * its own: it goes in a batch's form, by itself.
 */
struct batch_kinds {
    struct {
        char *text;
        size_t len;
        uint64_t kind;
        int64_t records; /* held, of this kind; 0: it may become another */
    } slots[ENGINE_BATCH_KINDS];
    uint64_t last; /* kind that was given out; none comes twice */
};
void batch_kinds_done(struct batch_kinds *k);
void batch_kinds_forget(struct batch_kinds *k, uint64_t kind); /* a record of it goes; 0: none */

/*
 * After record_admit: gives the record its kind and its item, or makes it poison (array form, and its body is no JSON: it could shift its
 * neighbours' results). A request without a body goes alone. path: where batches go; "": where the event would.
 */
void batch_admit(struct batch_kinds *k, struct record *rec, enum batch_format format, const char *path,
                 const struct event *ev);

/* ---- the request ------------------------------------------------------------------------------------------------------ */

const char *batch_content_type(enum batch_format format);
/* Members that are NULL have been taken out. -1: it is larger than the buffer's limit. */
NODISCARD int batch_body(struct buf *out, struct record *const *members, int count);
/*
 * Idempotency-Key: of one event its id; of several the first half of the SHA-256 of their ids, each followed by a line feed, in
 * hexadecimal. The same events in the same order have the same key.
 */
void batch_key(struct buf *out, struct record *const *members, int count);

/* ---- the answer --------------------------------------------------------------------------------------------------------- */

struct batch_item {
    int status;
    struct slice text; /* the item as it stands in the answer */
};
/*
 * The results in a 207, or in a 200 whose body is an array: as many items as the request had, each a status or an object with "status" (a
 * number) and perhaps "id" (which must then be the event's, in the cloudevents form). 1: items are filled; 0: the answer speaks of the
 * whole; -1: it cannot be read (TEMPORARY), so nothing is known.
 */
NODISCARD int batch_answer(int status, struct slice body, enum batch_format format,
                           struct record *const *members, int count, struct batch_item *items,
                           struct err *err);
