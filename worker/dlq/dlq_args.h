/* What the operator asks for: a verb, its flags and the ids behind it, taken apart and checked. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"
#include "worker/dlq/dlq_plan.h"

enum dlq_verb { DLQ_STATS, DLQ_LS, DLQ_SHOW, DLQ_REPLAY, DLQ_VERB_COUNT };

#define DLQ_IDS_MAX 4096

struct dlq_args {
    bool json, all, execute, help;
    const char *reason, *state, *key, *type, *since_text, *until_text, *limit_text, *rate_text;
    unsigned given; /* bit per flag of the table, for "ls does not take --rate" */
    struct dlq_filter filter;
    bool filtered; /* any of reason, state, key, type, since, until */
    int64_t limit; /* 0: not given */
    int64_t rate;  /* events a second; 0: as fast as it goes */
    const char *ids[DLQ_IDS_MAX];
    size_t id_count;
};

/*
 * Take the verbs' flags out of argv (they may stand anywhere), leaving the program name, options and words in *argc and argv.
 * Strings stay borrowed from argv. PERMANENT: a flag without its value.
 */
NODISCARD int dlq_args_take(struct dlq_args *args, int *argc, char **argv, struct err *err);
/* Is every flag one that this verb knows, and every value one that makes sense? now_ns: for "--since 2h". */
NODISCARD int dlq_args_check(struct dlq_args *args, enum dlq_verb verb, int64_t now_ns, struct err *err);
/* The flags of one verb, for its --help; the table of all, for the manual (mdoc). */
void dlq_args_help(enum dlq_verb verb, struct buf *out);
void dlq_args_mdoc(struct buf *out);
/* -1 and no verb of that name, or an enum dlq_verb. */
int dlq_verb_of(const char *word);
const char *dlq_verb_name(enum dlq_verb verb);
/* "2026-01-02T03:04:05Z", "2026-01-02" or "2h" (ago) as wall nanoseconds. */
NODISCARD int dlq_time_parse(const char *text, int64_t now_ns, int64_t *ret_ns, struct err *err);
