/* One option's value: from the text a user writes into the program's struct, and back. */
#pragma once

#include "common/options.h"

/*
 * Parse text by the option's type and limits into its member of `into` (which owns what it points to; an earlier value is freed).
 * -1 PERMANENT, without the option's name: the caller puts the source before it.
 */
NODISCARD int options_value_set(const struct option *o, const char *text, void *into, struct err *err);
void options_value_free(const struct option *o, void *into);
/* Append the member's value as a user would write it; nothing for a SECRET. */
void options_value_format(const struct option *o, const void *values, struct buf *out);
/* Append the limits, "1 to 100", "1ms to 10m"; nothing where there are none. */
void options_value_range(const struct option *o, struct buf *out);
bool options_value_is_bool(const char *text);
