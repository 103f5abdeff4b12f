/*
 * The keys that have a parked row: a bounded set of 64-bit hashes of (topic, key).
 *
 * Hashes, because a key may be long and the question is asked for each row. Two keys with one hash would park
 * rows that nothing is wrong with, in sight of everybody (table parked, metric); with 100,000 keys parked
 * that is one row in 10^14.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/compiler.h"
#include "common/err.h"
#include "common/event.h"

struct keyset {
    uint64_t *slots; /* owned; 0: empty */
    size_t capacity; /* a power of two, at least twice the limit */
    size_t count, limit;
};

NODISCARD int keyset_init(struct keyset *k, size_t limit, struct err *err);
void keyset_done(struct keyset *k);
void keyset_clear(struct keyset *k);
bool keyset_add(struct keyset *k, uint64_t hash); /* false: full, not added */
bool keyset_has(const struct keyset *k, uint64_t hash);
uint64_t keyset_hash(struct slice topic, struct slice key); /* never 0; 0 when there is no key (data NULL) */
