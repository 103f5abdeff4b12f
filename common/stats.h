/*
 * Counters, gauges and histograms from a table, updated by any thread and printed in Prometheus' text format.
 *
 * A program writes NAME_stats.def, one line per time series; lines of one name are one family and differ in their labels:
 *
 *     STAT(DELIVERED, COUNTER, "tandem_worker_delivered_total", "", "Events that the API took.")
 *     STAT(BURIED_REJECTED, COUNTER, "tandem_worker_dead_lettered_total", "reason=\"rejected\"", "Events dead-lettered.")
 *     STAT(REQUEST_TIME, HISTOGRAM, "tandem_worker_request_seconds", "", "From the start of a request to its answer.")
 *
 * and makes of it the ids and the table:
 *
 *     enum worker_stat {
 *     #define STAT(id, kind, name, labels, help) WORKER_##id,
 *     #include "worker/worker_stats.def"
 *     #undef STAT
 *         WORKER_STAT_COUNT
 *     };
 *     static const struct stat_row worker_stat_table[] = {
 *     #define STAT(id, ...) STAT_ROW(__VA_ARGS__),
 *     #include "worker/worker_stats.def"
 *     #undef STAT
 *     };
 *
 * What is named _seconds (also _seconds_total) is kept in nanoseconds and printed in seconds.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/compiler.h"

enum stat_kind { STAT_KIND_COUNTER, STAT_KIND_GAUGE, STAT_KIND_HISTOGRAM };

struct stat_row {
    enum stat_kind kind;
    const char *name;   /* counters end in _total, times in _seconds, sizes in _bytes */
    const char *labels; /* "" or "reason=\"auth\"" */
    const char *help;
};

#define STAT_ROW(kind_, name_, labels_, help_)                                                               \
    {                                                                                                        \
        .kind = STAT_KIND_##kind_, .name = (name_), .labels = (labels_), .help = (help_)                     \
    }

#define STATS_BUCKETS 21 /* 100 µs … 52 s, doubling; the last one is +Inf */
struct stat_value {
    _Atomic int64_t value;                 /* counter or gauge; for histograms the sum in ns */
    _Atomic int64_t bucket[STATS_BUCKETS]; /* histograms only: not cumulative in memory */
};

struct stats {
    const struct stat_row *rows; /* borrowed */
    struct stat_value *values;   /* owned */
    size_t count;
    int64_t started_wall_ns;
};

struct stats *stats_new(const struct stat_row *rows,
                        size_t count); /* at the start of the program; NULL: no memory */
void stats_free(struct stats *s);
/* Relaxed atomics: cheap enough for each event. */
void stats_add(struct stats *s, size_t id, int64_t n);
void stats_set(struct stats *s, size_t id, int64_t value);
void stats_observe(struct stats *s, size_t id, int64_t ns);
int64_t stats_get(const struct stats *s, size_t id);
/*
 * Prometheus text format 0.0.4: families grouped, HELP and TYPE once; also process_* (CPU, RSS, fds, start time) and
 * tandem_build_info.
 */
void stats_render(const struct stats *s, struct buf *out);
