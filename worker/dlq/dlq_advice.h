/* What a dead letter's reason means for people, and what they can do about it. */
#pragma once

#include "worker/dlq/dlq_index.h"

/* Both are sentences, never NULL; a reason that a newer worker invented gets a general one. */
const char *dlq_advice_meaning(const struct dlq_text *reason);
const char *dlq_advice_next(const struct dlq_entry *e);
