/*
 * The offset map: what a commit says about the offsets above it, as one short ASCII string in the commit's metadata.
 *
 *   ""                              nothing more to say than the offset itself
 *   "1" base64(payload)             RFC 4648 section 4, with padding
 *
 *   payload = kind (1 byte) · varint span · body · crc32c (4 bytes, little endian)
 *     span    offsets [committed, committed + span) are described; at and above its end nothing is known
 *     kind 1  a list of the incomplete offsets: for each varint(skip * 2 + marked), skip = complete offsets since the one before (or since
 *             `committed`); when marked is 1, a mark follows
 *     kind 2  runs: varint n, then n varints: lengths of the runs, incomplete first, then complete, in turn; what is left of the span is
 *             complete. Then for each incomplete offset with a mark: varint(index since the last such), mark
 *     mark    varint(attempts * 2 + ambiguous): counted attempts so far, and whether one of them all may have been executed; none when both are 0
 *     crc32c  over the committed offset (8 bytes, little endian) and all before it: a map beside another offset is refused
 *   varint = LEB128, unsigned. Offsets that are not incomplete are complete, also those that never existed (transaction markers, compaction).
 *
 * The smaller of the two kinds is written. What cannot be read (another version, wrong checksum, wrong offset, cut, trailing bytes) means:
 * deliver again from the committed offset with no attempts counted. It never means "skip".
 *
 * Why it always fits in OFFSET_MAP_CHARS_MAX (4096): 4096 characters hold 3,069 payload bytes, of which 15 are kind, span and checksum.
 * Take the list's cost as the sum over incomplete offsets of bytes(skip * 2 + 1) + 1, the 1 being the mark, as attempts are at most 63. Only intake
 * adds to it: an offset that completes leaves the sum and joins two skips into one, which takes no more bytes than both
 * took; a mark that comes or grows is in the sum already. So a stream that stops intake while the sum is at most OFFSET_MAP_INTAKE_MAX has the
 * rest as room for the one fetch that may still come, and fits whatever completes in whatever order. Should a fetch bring still more,
 * the map describes only as many offsets as fit, with a shorter span: those behind may come again after a crash, none is lost.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/compiler.h"
#include "worker/engine/engine.h"

#define OFFSET_MAP_PAYLOAD_MAX 3069     /* (4096 - 1) / 4 * 3 */
#define OFFSET_MAP_BODY_MAX (3069 - 15) /* less kind, span, checksum */
#define OFFSET_MAP_INTAKE_MAX 2048      /* intake stops when the incomplete offsets may cost more */
#define OFFSET_MAP_ENTRIES_MAX 4096 /* incomplete offsets in one map; a map that claims more is unreadable */
#define OFFSET_MAP_ATTEMPTS_MAX 63  /* a mark is one byte: part of the proof above */

struct offset_map_entry {
    int64_t offset; /* incomplete */
    int attempts;   /* counted so far, cut at OFFSET_MAP_ATTEMPTS_MAX */
    bool ambiguous; /* an attempt may have been executed without our knowing */
};

/* What is known about the offsets in [base, end): all but the entries are complete. */
struct offset_map {
    int64_t base, end;
    struct offset_map_entry *entries; /* rising offsets */
    size_t count;
};

/* Worst case bytes of an incomplete offset that comes `skip` complete ones after the one before. */
size_t offset_map_cost(int64_t skip);

/*
 * Write the map as a NUL-terminated string of at most OFFSET_MAP_CHARS_MAX characters, "" when it says nothing more than its base.
 * Entries lie in [base, end), rising. Returns the length.
 */
size_t offset_map_encode(const struct offset_map *map, char ret_text[OFFSET_MAP_CHARS_MAX + 1]);

/*
 * Read what was committed with the offset `base`. text NULL or "" is the empty map. entries: OFFSET_MAP_ENTRIES_MAX of room, owned by the
 * caller, pointed to by *ret_map. -1: unreadable, *ret_map is untouched.
 */
NODISCARD int offset_map_decode(const char *text, int64_t base, struct offset_map_entry *entries,
                                struct offset_map *ret_map);
