/* Which parked rows a person means: the condition and its parameters, shared by the verbs of `parked`. */
#pragma once

#include "producer/relay/relay_tool.h"

/* Over columns of tandem.parked; parameters as relay_parked_params adds them. */
#define RELAY_PARKED_CHOSEN                                                                                  \
    "($1::bigint[] IS NULL OR outbox_id = ANY ($1::bigint[]) OR event_id = ANY ($2::uuid[]))"                \
    " AND ($3::text IS NULL OR reason = $3) AND ($4::text IS NULL OR topic = $4)"                            \
    " AND ($5::bytea IS NULL OR key = tandem.parked_key($5))"
void relay_parked_params(const struct relay_args *args, struct relay_params *p);
