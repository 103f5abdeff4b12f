/* What rules.c and rules_parse.c share: a line, taken apart. */
#pragma once

#include "worker/targets/rules.h"

enum condition_kind {
    CONDITION_STATUS,
    CONDITION_TRANSPORT,
    CONDITION_HEADER,
    CONDITION_BODY,
    CONDITION_TYPE,
    CONDITION_METHOD,
    CONDITION_IF_MATCH,
    CONDITION_IF_NONE_MATCH,
    CONDITION_REPEATED
};

struct condition {
    enum condition_kind kind;
    int from, to; /* STATUS */
    enum transport transport;
    char *name;  /* of HEADER, BODY (its pointer), TYPE, METHOD */
    char *value; /* of HEADER, BODY; NULL: any */
};

struct rule {
    struct condition conditions[RULE_CONDITIONS_MAX];
    size_t condition_count;
    struct ruling ruling;
};

NODISCARD int rule_parse(const char *line, struct rule *ret, struct err *err); /* ret: zeroed */
void rule_done(struct rule *r);
