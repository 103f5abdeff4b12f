/* The dead-letter tool's contents page: its options, what a verb is given, and the verbs, one file each. */
#pragma once

#include <stdbool.h>
#include <stdio.h>

#include "common/clock.h"
#include "common/err.h"
#include "common/options.h"
#include "worker/dlq/dlq_args.h"
#include "worker/dlq/dlq_index.h"
#include "worker/dlq/dlq_store.h"

struct dlq_options {
#define OPTION(name, type, dflt, min, max, unit, prose) OPTION_MEMBER_##type(name)
#define OPTION_GROUP(title)
#include "worker/dlq/dlq_options.def"
#undef OPTION
#undef OPTION_GROUP
    struct option_pairs kafka;
};

/* One run of the tool. Borrowed by the verb; out and notes are stdout and stderr. */
struct dlq {
    const struct dlq_options *opts;
    const struct dlq_args *args;
    struct dlq_store *store;
    struct dlq_index index;
    FILE *out, *notes;
    bool in_part; /* the verb did some of what was asked for: exit 1 */
};

/* Scan both topics, and say on `notes` what was left out. A verb calls it when it wants the index. */
NODISCARD int dlq_load(struct dlq *dlq, struct err *err);

NODISCARD int dlq_stats(struct dlq *dlq, struct err *err);
NODISCARD int dlq_ls(struct dlq *dlq, struct err *err);
NODISCARD int dlq_show(struct dlq *dlq, struct err *err);
NODISCARD int dlq_replay(struct dlq *dlq, struct err *err);
