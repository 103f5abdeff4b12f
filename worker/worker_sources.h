/*
 * The source topics of a destination, and the engine's numbers for their partitions.
 *
 * The topics have equally many partitions, and so have the worker's own three: partition p of all of them is group p of the engine, whose
 * streams are the source topics' in the order of the list, then the replay topic's. Which number a stream has holds for one run only; what
 * is stored names topics.
 */
#pragma once

#include "common/err.h"
#include "worker/engine/engine.h"

#define SOURCES_MAX 16

struct sources {
    char *text;                      /* own copy of the list, cut up */
    const char *topics[SOURCES_MAX]; /* in it */
    int count;
};

/* "tandem.orders" or "tandem.orders, tandem.customers": each a name that Kafka takes, once. -1 PERMANENT. */
NODISCARD int sources_parse(const char *list, struct sources *ret, struct err *err);
void sources_done(struct sources *s);
/* Of which topics the list is, in whatever order. */
uint32_t sources_mark(const struct sources *s);
/* Its place in the list; -1: it is not a source topic. */
int sources_find(const struct sources *s, const char *topic);

/* Streams of one partition number. */
static inline int sources_streams(const struct sources *s)
{
    return s->count + 1;
}

static inline int sources_stream(const struct sources *s, int source, int partition)
{
    return partition * sources_streams(s) + source;
}

static inline int sources_replay(const struct sources *s, int partition)
{
    return sources_stream(s, s->count, partition);
}

static inline int sources_partition(const struct sources *s, int stream)
{
    return stream / sources_streams(s);
}

static inline bool sources_is_replay(const struct sources *s, int stream)
{
    return stream % sources_streams(s) == s->count;
}

/* Of a stream of a source topic. */
static inline const char *sources_topic(const struct sources *s, int stream)
{
    return s->topics[stream % sources_streams(s)];
}

/* More than so many cannot be numbered. */
static inline int sources_partitions_max(const struct sources *s)
{
    return ENGINE_STREAMS_MAX / sources_streams(s);
}
