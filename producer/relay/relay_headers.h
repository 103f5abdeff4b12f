/*
 * Turns the JSON object of a row's headers into names and values, once, when the row arrives.
 *
 * Packed they stay in the row's page: for each pair the length of its name (uint32, this machine's order), the name, the length of its
 * value (UINT32_MAX: null), the value. What jsonb_each_text makes of a value (the table source's reading) is made of it here: a string's
 * content, null as null, anything else as it is written.
 */
#pragma once

#include <stdbool.h>

#include "common/buf.h"
#include "common/event.h"

/* Append the pairs of json to out. -1: no JSON object, or no room in out, which may hold a part then. RFC 8259. */
NODISCARD int relay_headers_pack(struct slice json, struct buf *out);
/* The next pair, borrowed from packed, which moves behind it; false: none is left. */
bool relay_headers_next(struct slice *packed, struct slice *ret_name, struct slice *ret_value);
