/* What a person asks of tandem-relay beside running: a verb, its flags and the words behind it, taken apart and checked. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/compiler.h"
#include "common/err.h"

enum relay_verb {
    RELAY_VERB_RUN,
    RELAY_VERB_SETUP_DROP, /* before setup: the longer name is tried first */
    RELAY_VERB_SETUP,
    RELAY_VERB_STATUS,
    RELAY_VERB_PARKED_LS,
    RELAY_VERB_PARKED_SHOW,
    RELAY_VERB_PARKED_RETRY,
    RELAY_VERB_PARKED_DROP,
    RELAY_VERB_REPUBLISH,
    RELAY_VERB_SHARDS,
    RELAY_VERB_COUNT
};

#define RELAY_WORDS_MAX 4096

struct relay_args {
    bool json, all, yes, then_retry, new_ids, help;
    const char *reason, *topic, *key, *type, *since, *until, *from_id, *to_id, *limit;
    unsigned given;                     /* bit per flag of the table, for "status does not take --reason" */
    const char *words[RELAY_WORDS_MAX]; /* ids */
    size_t word_count;
    bool filtered;             /* any of reason, topic, key */
    struct buf numbers, uuids; /* the ids as Postgres arrays */
    struct buf key_bytes;      /* --key as a bytea literal */
};

/* Take the verbs' flags out of argv (they may stand anywhere), leaving options and words. Borrowed. PERMANENT: a flag without its value. */
NODISCARD int relay_args_take(struct relay_args *args, int *argc, char **argv, struct err *err);
/* The verb that the words begin with (none: run), which are taken; the others become args->words. */
NODISCARD int relay_args_verb(struct relay_args *args, const char *const *words, size_t count,
                              enum relay_verb *ret_verb, struct err *err);
/* Is every flag one that this verb knows, and every value one that makes sense? */
NODISCARD int relay_args_check(struct relay_args *args, enum relay_verb verb, struct err *err);
void relay_args_done(struct relay_args *args);

/* The verb that the first words of argv name, for "parked ls --help"; -1: none. */
int relay_verb_of(const char *const *words, size_t count, size_t *ret_words);
const char *relay_verb_name(enum relay_verb verb);
/* The flags of one verb, for its --help; the table of all, for the manual (mdoc). */
void relay_args_help(enum relay_verb verb, struct buf *out);
void relay_args_mdoc(struct buf *out);
