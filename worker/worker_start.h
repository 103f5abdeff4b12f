/* Where a destination begins in a partition for which its group has committed nothing. */
#pragma once

#include <stdint.h>

#include "common/err.h"

enum start_kind { START_EARLIEST, START_LATEST, START_TIME };
struct start {
    enum start_kind kind;
    int64_t time_ms; /* START_TIME: the first record of this time or later; since 1970-01-01 UTC */
};
/* "earliest", "latest", "2026-01-31T12:00:00Z" (RFC 3339, offsets too) or "-2h" before now. -1 PERMANENT. */
NODISCARD int start_parse(const char *text, int64_t wall_ns, struct start *ret, struct err *err);

/* Where a partition begins. by_time: its first record of start's time or later, negative: there is none; end: where it ends. */
int64_t start_place(const struct start *start, int64_t by_time, int64_t end);
