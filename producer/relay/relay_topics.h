/* The topics that rows go to: what a row's topic is called in Kafka, whether it is there, and how many partitions it has. */
#pragma once

#include <librdkafka/rdkafka.h>
#include <stdint.h>

#include "common/compiler.h"
#include "common/err.h"
#include "producer/relay/relay_ask.h"
#include "producer/relay/relay_producer.h"
#include "producer/relay/relay_publish.h"

/* One topic as rows name it. */
struct relay_topic {
    char name[250]; /* in the outbox */
    size_t name_len;
    char kafka_name[250]; /* by topic_map or topic_prefix; "": the prefix makes it too long */
    rd_kafka_topic_t
        *handles[RELAY_PRODUCERS]; /* one of each producer in use; the first NULL: not known to be there */
    int partitions;
    bool asked_for;   /* once, however long ago */
    int64_t asked_ns; /* 0: what is known of it counts no more */
    bool refused;     /* when last asked, or written to: why is filled */
    struct publish_refusal why;
};

struct relay_topics;

/* opt and ask are borrowed. NULL: PERMANENT, topic_map or topic_prefix cannot be read. */
struct relay_topics *relay_topics_new(const struct relay_options *opt, struct relay_ask *ask,
                                      struct err *err);
void relay_topics_free(struct relay_topics *t); /* NULL-safe */
/* Use these producers from now on, and ask with them (borrowed; count 0: there is none); handles of earlier ones are given back. */
void relay_topics_use(struct relay_topics *t, rd_kafka_t *const *rks, int count);

/* The topic of rec when it is known to take it; NULL: ask. */
const struct relay_topic *relay_topics_find(struct relay_topics *t, const struct relay_record *rec);

enum topic_answer {
    TOPIC_REFUSED, /* the row cannot be published there: why is filled */
    TOPIC_LATER    /* Kafka is being asked, or is to be asked when it has answered another question */
};
/* What is known against it; or ask Kafka, and let the topic be made where that is allowed. */
enum topic_answer relay_topics_ask(struct relay_topics *t, const struct relay_record *rec, int64_t now,
                                   struct publish_refusal *ret_why);
/* The reply to that: of a topic, and not a TEMPORARY failure. */
void relay_topics_note(struct relay_topics *t, const struct relay_reply *reply, int64_t now);
/* The name in Kafka of the topic that is asked for; "": none. */
const char *relay_topics_asked(const struct relay_topics *t);
/* Forget what is known about a topic: it was deleted, or has become smaller. */
void relay_topics_doubt(struct relay_topics *t, const struct relay_topic *topic);
/* Nothing may be written to the topic of this name in Kafka: for a while its rows are refused without being tried. */
void relay_topics_forbid(struct relay_topics *t, const char *kafka_name, int64_t now, const char *detail);
