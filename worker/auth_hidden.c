/* Takes secrets out of texts, whole ones and those that were cut at the end. */
#include "worker/auth_hidden.h"

#include <stdlib.h>
#include <string.h>

#include "common/utf8.h"
#include "worker/auth_secret.h"

#define FORM_BYTES_MAX (6 * 65536 + 1)

/* A character of more than one byte as \u and its UTF-16 units. */
static void append_units(struct buf *out, const char *s, size_t n)
{
    uint32_t c = (unsigned char)*s & (0xFFu >> (n + 1));
    for (size_t i = 1; i < n; i++)
        c = c << 6 | ((unsigned char)s[i] & 0x3F);
    if (c < 0x10000)
        (void)buf_printf(out, "\\u%04x", c);
    else
        (void)buf_printf(out, "\\u%04x\\u%04x", 0xD800 + ((c - 0x10000) >> 10),
                         0xDC00 + ((c - 0x10000) & 0x3FF));
}

/* RFC 8259 section 7, as most writers do it: the two that must be, and the slash that some escape is left alone. */
static void append_json(struct buf *out, const char *text, bool ascii)
{
    for (const char *end = text + strlen(text); text < end;) {
        unsigned char c = (unsigned char)*text;
        size_t n = utf8_char(text, (size_t)(end - text));
        if (n > 1 && ascii)
            append_units(out, text, n);
        else if (c == '"' || c == '\\')
            (void)buf_printf(out, "\\%c", c);
        else if (c == '\n')
            (void)buf_puts(out, "\\n");
        else if (c < 0x20)
            (void)buf_printf(out, "\\u%04x", c);
        else
            (void)buf_append(out, text, n > 1 ? n : 1);
        text += n > 1 ? n : 1;
    }
}

/* As a form has it: a space is a plus. */
static void append_form(struct buf *out, const char *text)
{
    for (; *text; text++)
        if (*text == ' ')
            (void)buf_puts(out, "+");
        else
            (void)buf_percent(out, text, 1);
}

static void append_base64(struct buf *out, const char *text)
{
    (void)buf_base64(out, text, strlen(text));
    while (out->len && out->data[out->len - 1] == '=')
        out->data[--out->len] = '\0';
}

/* The text in one form, NULL when that is the text itself. */
static char *form_of(const char *text, int form)
{
    struct buf out;
    buf_init(&out, FORM_BYTES_MAX);
    if (form == HIDDEN_PERCENT)
        (void)buf_percent(&out, text, strlen(text));
    else if (form == HIDDEN_FORM)
        append_form(&out, text);
    else if (form == HIDDEN_BASE64)
        append_base64(&out, text);
    else
        append_json(&out, text, form == HIDDEN_JSON_ASCII);
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
