/*
 * Decodes what a walsender sends for a logical slot: keepalives, and pgoutput's messages of protocol version 1. Bytes in, a struct out.
 *
 * No I/O and no foreign header. The server is trusted no further than any network: every length is checked, and what does not add up
 * is an error that names it. PostgreSQL manual, "Streaming Replication Protocol" and "Logical Replication Message Formats";
 * binary column values as the types' send functions write them (the relay asks for binary 'true').
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/compiler.h"
#include "common/err.h"
#include "common/event.h"

#define PGOUTPUT_RELATIONS_MAX 8 /* the outbox and its child tables: more of them in one stream is an error */
#define PGOUTPUT_COLUMNS_MAX 64  /* of an outbox with further columns of the user's own, which are skipped */
#define PGOUTPUT_MESSAGE_PREFIX "tandem"

/* An outbox row or an emitted event. Slices are borrowed from the bytes that were read; data NULL: SQL null. */
struct pgoutput_row {
    int64_t id;           /* 0: an emitted event has none */
    int64_t created_us;   /* since 1970-01-01 UTC */
    int64_t timestamp_us; /* the same; only when has_timestamp */
    int32_t partition;    /* only when has_partition */
    bool has_timestamp, has_partition;
    bool
        unreadable; /* a message that is no event: all but its content, as payload, and created_us is left out */
    struct slice event_id; /* 16 bytes */
    struct slice topic, key, type, source, content_type, payload, traceparent;
    struct slice headers; /* the text of a JSON value */
};

enum pgoutput_kind {
    PGOUTPUT_NOTHING, /* of no interest: another table, an update, another prefix, … */
    PGOUTPUT_BEGIN,   /* xid; lsn of the commit record */
    PGOUTPUT_ROW,     /* row */
    PGOUTPUT_COMMIT,  /* lsn of the commit record, end_lsn behind it */
    PGOUTPUT_KEEPALIVE, /* end_lsn: the server has sent everything up to here; wanted: it asks for an answer now */
};

struct pgoutput_event {
    enum pgoutput_kind kind;
    uint32_t xid;
    uint64_t lsn, end_lsn;
    bool wanted;
    struct pgoutput_row row;
};

/* A table of the outbox as its Relation message described it: which of its columns is which of ours. */
struct pgoutput_relation {
    uint32_t oid;
    uint16_t count;
    uint8_t column[PGOUTPUT_COLUMNS_MAX];
};

/* What a stream has told so far; begin each stream with one that is zero but for `emitted`. */
struct pgoutput {
    struct pgoutput_relation relations[PGOUTPUT_RELATIONS_MAX];
    int relation_count;
    int64_t committed_us; /* the transaction that is sent */
    bool open;            /* between Begin and Commit */
    bool emitted;         /* rows are what tandem.outbox_emit sent; false: what was inserted into the table */
};

/*
 * One message as PQgetCopyData hands it out. -1: PERMANENT, the stream cannot be read on. Any role may write messages of our prefix, so what is
 * no event stops nobody: it is a row that is unreadable. Only an event of a later version is an error; a later program can read it.
 */
NODISCARD int pgoutput_read(struct pgoutput *d, const char *bytes, size_t len, struct pgoutput_event *ret_ev,
                            struct err *err);

#define PGOUTPUT_STATUS_BYTES 34
/* The standby status update that confirms everything up to lsn. sent_us: since 1970-01-01 UTC. */
void pgoutput_status(uint64_t lsn, int64_t sent_us, char out[PGOUTPUT_STATUS_BYTES]);
