/* A dead letter seen through its headers: reason, last answer, where it stood, how often it was replayed. Pure. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/event.h"

#define DLQ_ID_BYTES_MAX 1024  /* x-dlq-id and x-dlq-event-id; longer: not a dead letter of ours */
#define DLQ_WORD_BYTES_MAX 256 /* reason, topic, destination, event type in lists */

/* Where an event first stood, and which round of it this is: x-dlq-id, taken apart. */
struct dlq_id {
    struct slice destination, topic;
    int32_t partition, replay_count;
    int64_t offset;
};

/* All slices borrow from the Kafka message. Numbers that are absent are -1. docs/formats.md, "Dead letter". */
struct dlq_record {
    struct dlq_id id;
    struct slice id_text, event_id, reason, message, group;
    struct slice curl_code, response_body, first_attempt, last_attempt, parked_behind, worker, replay_id;
    struct slice type, source, event_time, content_type, traceparent; /* of the event itself */
    int64_t http_status, attempts, attempts_in_all;
    bool ambiguous;
    struct slice version, topic, partition, offset, replay_count,
        destination; /* as they stand, checked by _end */
    struct slice ambiguous_text, http_status_text, attempts_text, attempts_in_all_text;
};

/* Take a record's headers one by one, in record order (the last of a name counts); there may be any number of them. */
void dlq_record_begin(struct dlq_record *rec);
void dlq_record_header(struct dlq_record *rec, struct slice name, struct slice value);
/*
 * After the last header: is it a dead letter of `destination` in version 1? -1 PERMANENT names the header that is missing or wrong.
 * Optional headers that cannot be read count as absent: a dead letter is never hidden because of a detail.
 */
NODISCARD int dlq_record_end(struct dlq_record *rec, const char *destination, struct err *err);

/* "<destination>/<topic>/<partition>/<offset>/<replay-count>"; 0 or -1. */
NODISCARD int dlq_id_parse(struct slice text, struct dlq_id *ret_id);
/* Headers that Tandem wrote onto the event, and that therefore do not go along in a replay. */
bool dlq_header_is_ours(struct slice name);
/* Decimal digits only, 0 … max; -1 when it is anything else. */
int64_t dlq_number(struct slice text, int64_t max);
