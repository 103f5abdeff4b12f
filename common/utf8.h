/* Tells UTF-8 text from other bytes, and makes text of anything. RFC 3629. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "common/buf.h"

/* Length (1 to 4) of the well-formed character at the start of s, 0 when there is none. len > 0. */
size_t utf8_char(const char *s, size_t len);
bool utf8_valid(const char *s, size_t len);
/*
 * Append s to out as valid UTF-8 of at most max_bytes: each byte that is not part of a character becomes
 * U+FFFD, and the cut is between characters. 0, or -1 as buf_append.
 */
int utf8_clean(struct buf *out, const char *s, size_t len, size_t max_bytes);
