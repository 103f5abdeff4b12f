/* The words that must not show in anything a person reads, and taking them out of texts. */
#pragma once

#include "common/buf.h"
#include "common/event.h"

/*
 * A secret may come back as it was sent; through the escapes of JSON, of a path or of a form, of whichever characters and in whichever
 * spelling their writer chose (PHP's "\/", .NET's "\u002B", "%2f"), also of JSON quoted in JSON; or in base64, standard or URL-safe, with
 * padding or without, when it is encoded alone. The value before the last change may still be echoed.
 */
enum {
    HIDDEN_RAW,
    HIDDEN_PLUS,
    HIDDEN_BASE64,
    HIDDEN_BASE64_URL,
    HIDDEN_FORMS
}; /* PLUS: each space is one */
#define HIDDEN_AGES 2
struct auth_hidden {
    char *form[HIDDEN_AGES][HIDDEN_FORMS]; /* newest first; NULL: none, or the same as the raw one */
};

/* text becomes the newest value; no effect when it is that already. Values of fewer than 4 bytes cannot be told from other text. */
void auth_hidden_add(struct auth_hidden *h, const char *text);
void auth_hidden_done(struct auth_hidden *h);
#define HIDDEN_TAIL_MIN 6
/*
 * Append text to out with each occurrence of any of these words replaced by "[redacted]". cut: the text has lost its end, so a word's
 * beginning there, of HIDDEN_TAIL_MIN bytes of it and more, goes too. Takes time len * words, and ten times len of memory meanwhile.
 */
NODISCARD int auth_hidden_redact(const struct auth_hidden hidden[], size_t count, struct slice text, bool cut,
                                 struct buf *out);
