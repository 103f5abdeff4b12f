/* Reads the binary column values of an outbox row: integers, times, and header names and values as arrays of text. */
#pragma once

#include <stdint.h>

#include "common/event.h"
#include "producer/relay/relay_source.h"

int64_t relay_row_int64(struct slice value); /* 8 bytes, network order; 0 for any other length */
int32_t relay_row_int32(struct slice value); /* 4 bytes, network order; 0 for any other length */
int64_t relay_row_unix_us(
    struct slice timestamp); /* timestamptz: microseconds since 2000-01-01 UTC; the result fits in ns */
int64_t relay_row_clamp_us(int64_t unix_us); /* so that it, and its age, fit in ns */
/* One more header; *bytes counts them. false: it breaks a rule below, the record is marked as poison. */
bool relay_row_add_header(struct relay_record *rec, struct slice name, struct slice value, size_t *bytes);
/*
 * Fill rec->headers from two text[] values of the same length (both without data: none). More or larger than the limits, a name that is
 * empty, reserved (ce_…, x-dlq-…, __dlq.…, content-type, traceparent) or has a NUL: the record is marked as poison.
 * Postgres: array_send (src/backend/utils/adt/arrayfuncs.c).
 */
void relay_row_headers(struct slice names, struct slice values, struct relay_record *rec);
/* 1–249 of [a-zA-Z0-9._-], not "." or ".." (Kafka's Topic.validate). */
bool relay_row_topic_legal(struct slice topic);

/*
 * Can the record travel? Otherwise it is marked as poison, with the first reason found. too_large: key and payload are larger than
 * max_record_bytes; bad_headers: they are no JSON object, or larger than 64 KiB.
 */
void relay_row_check(struct relay_record *rec, bool too_large, bool bad_headers);

#define RELAY_ROW_TIME_BYTES 32
/* "2026-01-02T03:04:05.678901Z" into out; returns its length. RFC 3339, microseconds. */
int relay_row_time(int64_t unix_us, char out[RELAY_ROW_TIME_BYTES]);
#define RELAY_ROW_UUID_BYTES 37
void relay_row_uuid(struct slice bytes16, char out[RELAY_ROW_UUID_BYTES]); /* "…" in the usual form */
