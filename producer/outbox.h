/*
 * Put an event into the outbox inside the caller's own open Postgres transaction: committed with it or not at all (G1).
 *
 * The only header a service includes, and the only library it links: libtandem-outbox, which needs libpq and nothing else.
 * It never prints, exits, starts a thread or opens a connection, and never begins or ends a transaction.
 * C and C++. Thread-safe as libpq is: different connections from different threads, one connection from one thread at a time.
 *
 *     PQexec(conn, "BEGIN");
 *     ... the business UPDATE or INSERT first: it takes the lock that gives events of one key their order ...
 *     struct outbox_event ev = {.topic = "tandem.orders", .key = "o-17", .type = "order.placed", .payload = json, .payload_len = len};
 *     struct outbox_err err;
 *     if (outbox_put(conn, &ev, NULL, &err) < 0)
 *         ... err.message says why; ROLLBACK ...
 *     PQexec(conn, "COMMIT");
 */
#ifndef TANDEM_OUTBOX_H
#define TANDEM_OUTBOX_H

#include <libpq-fe.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#pragma GCC visibility push(default)

#define OUTBOX_EVENT_ID_BYTES 37 /* 36 characters and NUL */

/* Limits; past one of them outbox_put refuses. Kafka's own limit of a record is lower by default: see the relay's parked rows. */
#define OUTBOX_KEY_BYTES_MAX 4096
#define OUTBOX_TEXT_BYTES_MAX 1024 /* type, source, content_type: each */
#define OUTBOX_PAYLOAD_BYTES_MAX (64u * 1024 * 1024)
#define OUTBOX_HEADERS_MAX 64
#define OUTBOX_HEADER_BYTES_MAX 32768 /* names and values together */

struct outbox_header {
    const char *name, *value; /* both required */
};

/*
 * Zero what you do not use. All pointers are borrowed for the call. Strings are NUL-terminated UTF-8 without control characters,
 * whatever the connection's client_encoding is.
 */
struct outbox_event {
    const char *topic;        /* required: Kafka topic, 1–249 of [a-zA-Z0-9._-] */
    const void *key;          /* bytes of the Kafka key; NULL: no key, and then no order */
    size_t key_len;           /* 0 with a key: it is a C string, not empty */
    const char *type;         /* required: CloudEvents type, "order.placed" */
    const void *payload;      /* bytes as they shall travel; NULL: a tombstone */
    size_t payload_len;       /* 0 with a payload: it is a C string */
    const char *content_type; /* NULL: "application/json" */
    const char *source;       /* CloudEvents source; NULL: "tandem" */
    const char *event_id;     /* a UUID of yours; NULL: a version 7 one is made (RFC 9562) */
    const char *traceparent;  /* W3C trace context; NULL: a new trace is started */
    /*
     * Further Kafka headers, each name once; their order is not kept. Names that Tandem writes itself are refused, in either case:
     * "content-type", "traceparent", and what starts with "ce_", "x-dlq-" or "__dlq.".
    */
    const struct outbox_header *headers;
    size_t header_count;
    const int *partition; /* explicit Kafka partition, not negative: &(int){3}; NULL: the key chooses */
    int64_t
        timestamp_ms; /* explicit timestamp of the record, since 1970, up to the year 9999; 0: when it was created */
};

struct outbox_err {
    char message[256]; /* one line, lower case, the offending value in quotes */
    char sqlstate[6];  /* of the server, "" when the server was not asked */
    int retriable; /* 1: the same transaction may succeed when run again (serialization failure, lost connection) */
};

/*
 * Put ev into the transaction that is open on conn. Returns 0, or -1 with err filled (err may be NULL).
 * ret_event_id, when not NULL, receives the event id's text.
 * Refused, with nothing sent: no open transaction, a failed one, a connection in the middle of a COPY or with an unread result,
 * a field that is missing or over its limit. One round trip; a server error leaves the transaction failed, as any statement would
 * (inside a savepoint: roll back to it and go on).
 *
 * The statement is prepared once per connection. PQreset, and a DISCARD ALL or DEALLOCATE ALL sent through this PGconn, are noticed
 * (libpq shows the library every result of a connection that it has used). One hidden in a function or made by a pooler is not: the next
 * call then fails once with SQLSTATE 26000 and retriable 1, and the one after it prepares again.
 *
 * In pipeline mode use outbox_send instead.
 */
int outbox_put(PGconn *conn, const struct outbox_event *ev, char *ret_event_id, struct outbox_err *err);

/*
 * The same in pipeline mode (PQenterPipelineMode): queues the insert, without a round trip and without waiting. The transaction must
 * have been begun on this connection, earlier or in this same pipeline. libpq cannot see it while results are outstanding: then the
 * caller declares it by in_transaction 1; without that the call is refused.
 * Exactly one result (PGRES_TUPLES_OK, the event id) and its NULL come out of PQgetResult for it, and before the first use on a
 * connection one more (PGRES_COMMAND_OK of the preparation) with its NULL: *ret_results, when not NULL, says how many, 1 or 2
 * (when -1 is returned: 0, or 1 if memory ran out after the preparation was queued).
 * A server error arrives as the result's, not here. Read the result of a queued DEALLOCATE ALL before the next call.
 */
int outbox_send(PGconn *conn, const struct outbox_event *ev, int in_transaction, char *ret_event_id,
                int *ret_results, struct outbox_err *err);

/*
 * The same event without a row, for a relay with source = message: it goes into the write-ahead log with the commit of the transaction
 * (pg_logical_emit_message), and nowhere else. The fastest way, without a safety net: there is nothing to read again, so an event is lost
 * when no replication slot of the relay existed at that moment or the slot is lost before the relay has read it, and it can neither be
 * republished nor looked at. Never mix both ways for one key: there is no order between them.
 *
 * Rules, limits and results are those of outbox_put and outbox_send. Refused by the server with SQLSTATE 55000 where wal_level is not
 * logical. In pipeline mode the one result is PGRES_TUPLES_OK with the position of the message in the log.
 */
int outbox_emit(PGconn *conn, const struct outbox_event *ev, char *ret_event_id, struct outbox_err *err);
int outbox_emit_send(PGconn *conn, const struct outbox_event *ev, int in_transaction, char *ret_event_id,
                     int *ret_results, struct outbox_err *err);

/* The library's version, "0.1.0". Static. */
const char *outbox_version(void);

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif

#endif
