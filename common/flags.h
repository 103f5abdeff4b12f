/*
 * Flags of a tool's verbs: one table parses them, says which verb takes which, and writes their help and their part of the manual. They are
 * beside a program's options, which come from a file and from variables as well.
 *
 *     static const struct flag FLAGS[] = {{"--limit", FLAG_WORD, ON(LS), offsetof(struct x_args, limit), "N", "no more than so many"}, …};
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "common/buf.h"
#include "common/compiler.h"
#include "common/err.h"

enum flag_kind { FLAG_BOOL, FLAG_WORD };

struct flag {
    const char *name; /* "--limit" */
    enum flag_kind kind;
    unsigned verbs;            /* bit per verb that takes it */
    size_t offset;             /* of a bool, or of a const char * that borrows from argv */
    const char *value, *prose; /* value: what stands behind a WORD in the help */
};

struct flag_set {
    const struct flag *flags;
    size_t count;             /* 32 at most */
    const char *const *verbs; /* their names, as a user writes them */
    unsigned verb_count;
};

/*
 * Take the flags of all verbs out of argv into `into`; other words stay, in order. *ret_given has a bit per flag; *ret_help says that
 * --help or -h was there, which stays too. -1 PERMANENT.
 */
NODISCARD int flags_take(const struct flag_set *set, void *into, int *argc, char **argv, unsigned *ret_given,
                         bool *ret_help, struct err *err);
/* -1 PERMANENT: "ls does not take --rate". */
NODISCARD int flags_check(const struct flag_set *set, unsigned given, unsigned verb, struct err *err);
void flags_help(const struct flag_set *set, unsigned verb, struct buf *out); /* the flags of one verb */
void flags_mdoc(const struct flag_set *set, struct buf *out);                /* the section of the manual */
