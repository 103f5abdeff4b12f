/* The parked keys of one group: for each key the events that are in the dead-letter topic and not yet delivered by a replay. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/event.h"
#include "worker/engine/list.h"
#include "worker/engine/timers.h"

#define PARKED_EVENTS_MAX 1000 /* ids of one key; more: overflow */
#define PARKED_VALUE_BYTES_MAX                                                                               \
    (256 << 10) /* of a key's JSON; more: overflow too. A broker takes 1 MiB by default */

/* A set of event ids in the order they came. Zeroed is empty. Owns its bytes. */
struct parked_set {
    struct slice *ids;
    size_t count, cap;
    size_t json_bytes; /* of the ids as they will be written */
    bool overflow;     /* there were more than fit: only the operator frees the key */
    bool
        unknown; /* the state could not be read: only the operator frees the key, and nothing overwrites it */
};

void parked_set_done(struct parked_set *set);
bool parked_set_has(const struct parked_set *set, struct slice id);
/* Each returns true when the set changed and so must be written. */
bool parked_set_add(struct parked_set *set, struct slice id);
bool parked_set_remove(struct parked_set *set, struct slice id);
bool parked_set_is_empty(const struct parked_set *set); /* the key is free */
/* The first event, {NULL, 0} when it is not known. */
struct slice parked_set_first(const struct parked_set *set);

/* parked_value.c: the set as the parked topic holds it (docs/formats.md). */

/* Append {"version":1,"events":["…"],"overflow":false}. -1: over the buffer's limit. */
NODISCARD int parked_set_write(const struct parked_set *set, struct buf *out);
/* Read exactly that format (white space between tokens allowed) into an empty set. -1 PERMANENT: the set stays empty. */
NODISCARD int parked_set_read(struct slice value, struct parked_set *ret_set, struct err *err);
/* The text of the header that says a record's epoch: 1 to 18 digits. 0: none, or no such text. */
int64_t parked_epoch_read(struct slice text);
/* Bytes that an id takes in the JSON, with its quotes. */
size_t parked_id_json_bytes(struct slice id);

/* A key and the state of its write. parking.c moves it. */
struct parked_key {
    struct parked_key *next; /* in its bucket */
    struct group *group;
    char *key;
    size_t key_len;
    uint64_t hash;
    struct parked_set set;
    struct link queue;  /* of writes to hand out */
    struct timer again; /* after a failed write */
    uint64_t token;     /* of the write that is out, 0: none */
    bool changed;       /* since the write that is out */
    int64_t epoch;      /* of the record that it was loaded from; 0: none */
    bool freed;         /* counted in group.freed */
    bool overwritten;   /* the topic's last record of it is of an older epoch */
    int failures;       /* of writes, in a row */
    struct slice
        refused; /* an own copy: the replay of it that was dead-lettered again last; data NULL: none since */
    struct list waiters; /* deliveries that are complete when the newest state is safe, by queue link */
};

/* A table by key. */
struct parked {
    struct parked_key **buckets;
    size_t bucket_count, count;
};

void parked_init(struct parked *p);
void parked_done(struct parked *p); /* each key must have been taken out of queue and timers */
struct parked_key *parked_find(const struct parked *p, uint64_t hash,
                               struct slice key); /* NULL: not parked */
/* Find or add; key is copied. */
struct parked_key *parked_get(struct parked *p, uint64_t hash, struct slice key);
void parked_drop(struct parked *p, struct parked_key *key);
void parked_refuse(struct parked_key *key, struct slice id); /* id is copied; data NULL: none any more */
/* Must a replay of this event wait, because another one of the key comes before it? */
bool parked_holds_up(const struct parked_key *key, struct slice id);
/* Any key, NULL when there is none: to take them out one by one. */
struct parked_key *parked_any(const struct parked *p);
/* Call for each key; it may drop the key that it is given, and change nothing else of the table. */
void parked_each(const struct parked *p, void (*call)(void *context, struct parked_key *key), void *context);
