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
#define HIDDEN_PART_MIN 6
/* What a text may have lost of what it quotes: nothing; its own end; or, an error's message, the end of anything in it. */
enum hidden_cut { HIDDEN_WHOLE, HIDDEN_CUT_AT_END, HIDDEN_CUT_ANYWHERE };
/*
 * Append text to out with each occurrence of any of these words replaced by "[redacted]", and where something may be cut a word's beginning,
 * too, of HIDDEN_PART_MIN bytes and more. Takes time len * words, and ten times len of memory meanwhile.
 */
NODISCARD int auth_hidden_redact(const struct auth_hidden hidden[], size_t count, struct slice text,
                                 enum hidden_cut cut, struct buf *out);
