/*
 * Counters, gauges and histograms from a table, written by one thread and read by any, printed in Prometheus' text format.
 *
 * A program writes NAME_stats.def of STAT_COUNTER(id, "metric_name", "help"), STAT_GAUGE(...), STAT_HISTOGRAM(...) lines.
 * A metric may carry one fixed label string per line ("reason=\"rejected\""), so that a family has several lines.
 */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/compiler.h"

enum stat_kind { STAT_KIND_COUNTER, STAT_KIND_GAUGE, STAT_KIND_HISTOGRAM };

struct stat_row {
    enum stat_kind kind;
    const char *name;   /* "tandem_relay_published_total": counters end in _total, times in _seconds, sizes in _bytes */
    const char *labels; /* "" or "reason=\"auth\"" */
    const char *help;
};

#define STATS_BUCKETS 20 /* 100 µs … 52 s, doubling; the last one is +Inf */
struct stat_value {
    _Atomic int64_t value;                  /* counter or gauge; for histograms the sum in ns */
    _Atomic int64_t bucket[STATS_BUCKETS];  /* histograms only: not cumulative in memory */
};

struct stats {
    const struct stat_row *rows; /* borrowed */
    struct stat_value *values;   /* owned */
    size_t count;
};

struct stats *stats_new(const struct stat_row *rows, size_t count); /* NULL: no memory */
void stats_free(struct stats *s);
/* Relaxed atomics: cheap enough for each event. */
void stats_add(struct stats *s, size_t id, int64_t n);
void stats_set(struct stats *s, size_t id, int64_t value);
void stats_observe(struct stats *s, size_t id, int64_t ns);
int64_t stats_get(const struct stats *s, size_t id);
/* Prometheus text format 0.0.4: families grouped, HELP and TYPE once; also process_* (CPU, RSS, fds, start time). */
void stats_render(const struct stats *s, struct buf *out);
