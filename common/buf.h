/* A growing byte buffer whose limit is set at birth; past the limit it refuses instead of growing. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/compiler.h"

struct buf {
    char *data; /* always NUL-terminated when not NULL; the NUL is not counted in len */
    size_t len, cap, limit;
    bool failed; /* an append did not fit (limit or memory); sticky until buf_reset */
};

void buf_init(struct buf *b, size_t limit_bytes);
void buf_done(struct buf *b);  /* NULL-safe; b may be used again after buf_init */
void buf_reset(struct buf *b); /* empty, keep the memory, clear `failed` */
/* Each append returns 0, or -1 with `failed` set and the content unchanged. */
int buf_append(struct buf *b, const void *data, size_t len);
int buf_puts(struct buf *b, const char *s);
int buf_printf(struct buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Standard base64 (RFC 4648 section 4) of data, with padding. */
int buf_base64(struct buf *b, const void *data, size_t len);
/* Percent-encode everything but RFC 3986 unreserved characters: safe as one path segment or query value. */
int buf_percent(struct buf *b, const void *data, size_t len);
const char *buf_str(const struct buf *b); /* "" when empty; borrowed until the next append */
