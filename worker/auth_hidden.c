/* Takes secrets out of texts, whole ones and those that were cut at the end. */
#include "worker/auth_hidden.h"

#include <stdlib.h>
#include <string.h>

#include "worker/auth_secret.h"

#define FORM_BYTES_MAX (6 * 65536 + 1)

/* RFC 8259 section 7, as most writers do it: the two that must be, and the slash that some escape is left alone. */
static void append_json(struct buf *out, const char *text)
{
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\')
            (void)buf_printf(out, "\\%c", c);
        else if (c == '\n')
            (void)buf_puts(out, "\\n");
        else if (c < 0x20)
            (void)buf_printf(out, "\\u%04x", c);
        else
            (void)buf_append(out, text, 1);
    }
}

/* The text in one form, NULL when that is the text itself. */
static char *form_of(const char *text, int form)
{
    struct buf out;
    buf_init(&out, FORM_BYTES_MAX);
    if (form == HIDDEN_PERCENT)
        (void)buf_percent(&out, text, strlen(text));
    else
        append_json(&out, text);
    ENSURE(!out.failed);
    char *found = strcmp(buf_str(&out), text) == 0 ? NULL : strdup(buf_str(&out));
    if (out.data)
        explicit_bzero(out.data, out.cap);
    buf_done(&out);
    return found;
}

static void forget(char **forms)
{
    for (int i = 0; i < HIDDEN_FORMS; i++) {
        auth_secret_wipe(forms[i]);
        forms[i] = NULL;
    }
}

void auth_hidden_add(struct auth_hidden *h, const char *text)
{
    const char *newest = h->form[0][HIDDEN_RAW];
    if (strlen(text) < 4 || (newest && strcmp(newest, text) == 0))
        return;
    forget(h->form[HIDDEN_AGES - 1]);
    memmove(h->form[1], h->form[0], sizeof h->form[0] * (HIDDEN_AGES - 1));
    h->form[0][HIDDEN_RAW] = strdup(text);
    ENSURE(h->form[0][HIDDEN_RAW]);
    for (int i = HIDDEN_RAW + 1; i < HIDDEN_FORMS; i++)
        h->form[0][i] = form_of(text, i);
}

void auth_hidden_done(struct auth_hidden *h)
{
    for (int age = 0; age < HIDDEN_AGES; age++)
        forget(h->form[age]);
}

/* How many bytes at the start of text are this word. */
static size_t match_word(const char *word, struct slice text, bool cut)
{
    if (!word || *word != *text.data)
        return 0;
    size_t n = strlen(word);
    if (n <= text.len)
        return memcmp(word, text.data, n) == 0 ? n : 0;
    return cut && text.len >= HIDDEN_TAIL_MIN && memcmp(word, text.data, text.len) == 0 ? text.len : 0;
}

static size_t match_any(const struct auth_hidden hidden[], size_t count, struct slice text, bool cut)
{
    size_t longest = 0;
    for (size_t i = 0; i < count * HIDDEN_AGES * HIDDEN_FORMS; i++) {
        const struct auth_hidden *h = &hidden[i / (HIDDEN_AGES * HIDDEN_FORMS)];
        size_t n = match_word(h->form[i / HIDDEN_FORMS % HIDDEN_AGES][i % HIDDEN_FORMS], text, cut);
        longest = n > longest ? n : longest;
    }
    return longest;
}

int auth_hidden_redact(const struct auth_hidden hidden[], size_t count, struct slice text, bool cut,
                       struct buf *out)
{
    size_t plain = 0; /* where the text since the last hit begins */
    for (size_t i = 0; i < text.len;) {
        size_t n = match_any(hidden, count, (struct slice){text.data + i, text.len - i}, cut);
        if (n == 0) {
            i++;
            continue;
        }
        if (buf_append(out, text.data + plain, i - plain) < 0 || buf_puts(out, "[redacted]") < 0)
            return -1;
        i += n;
        plain = i;
    }
    return text.len > plain ? buf_append(out, text.data + plain, text.len - plain) : 0;
}
