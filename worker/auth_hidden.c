/* Takes secrets out of texts, however a text writes them, whole ones and those that were cut at the end. */
#include "worker/auth_hidden.h"

#include <stdlib.h>
#include <string.h>

#include "worker/auth_secret.h"

#define FORM_BYTES_MAX (2 * 65536)

/* ---- the words ----------------------------------------------------------------------------------------------------------- */

static void replace(char *text, char old, char fresh)
{
    for (; *text; text++)
        if (*text == old)
            *text = fresh;
}

static void append_base64(struct buf *out, const char *text, bool url_safe)
{
    (void)buf_base64(out, text, strlen(text));
    while (out->len && out->data[out->len - 1] == '=')
        out->data[--out->len] = '\0';
    if (!url_safe || !out->data)
        return;
    replace(out->data, '+', '-');
    replace(out->data, '/', '_');
}

/* The text in one form, NULL when that is the text itself. */
static char *form_of(const char *text, int form)
{
    struct buf out;
    buf_init(&out, FORM_BYTES_MAX);
    if (form == HIDDEN_PLUS) {
        (void)buf_puts(&out, text);
        replace(out.data, ' ', '+');
    } else
        append_base64(&out, text, form == HIDDEN_BASE64_URL);
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

/* ---- what a text says ---------------------------------------------------------------------------------------------------- */

/* The text with escapes resolved, and where in it each byte began, and the end. */
struct reading {
    char *bytes;
    uint32_t *from; /* len + 1 */
    size_t len;
};

/* What stands at s for the n bytes in out: how many bytes of it. 0: it is the beginning of an escape, and the text ends there. */
typedef size_t (*hidden_take)(const char *s, size_t len, char out[4], size_t *n);

#define HEX_NONE (-1)
#define HEX_ENDS (-2)

/* So many hexadecimal digits. */
static int32_t take_hex(const char *s, size_t len, size_t count)
{
    int32_t value = 0;
    for (size_t i = 0; i < count; i++) {
        if (i == len)
            return HEX_ENDS;
        char c = s[i];
        int digit = c >= '0' && c <= '9'                     ? c - '0'
                    : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10
                                                             : -1;
        if (digit < 0)
            return HEX_NONE;
        value = value * 16 + digit;
    }
    return value;
}

/* RFC 3629 */
static size_t put_character(uint32_t c, char out[4])
{
    size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const unsigned char first[] = {0, 0, 0xC0, 0xE0, 0xF0};
    for (size_t i = n - 1; i > 0; i--, c >>= 6)
        out[i] = (char)(0x80 | (c & 0x3F));
    out[0] = (char)(first[n] | c);
    return n;
}

static size_t take_itself(const char *s, char out[4], size_t *n)
{
    out[0] = *s;
    *n = 1;
    return 1;
}

/* "\uXXXX", and a second one where it takes two for a character. */
static size_t take_unit(const char *s, size_t len, char out[4], size_t *n)
{
    int32_t unit = take_hex(s + 2, len - 2, 4);
    if (unit == HEX_ENDS)
        return 0;
    if (unit == HEX_NONE || (unit >= 0xDC00 && unit <= 0xDFFF))
        return take_itself(s, out, n);
    if (unit < 0xD800 || unit > 0xDFFF) {
        *n = put_character((uint32_t)unit, out);
        return 6;
    }
    size_t same = len - 6 < 2 ? len - 6 : 2;
    if (memcmp(s + 6, "\\u", same) != 0)
        return take_itself(s, out, n);
    int32_t low = same < 2 ? HEX_ENDS : take_hex(s + 8, len - 8, 4);
    if (low == HEX_ENDS)
        return 0;
    if (low < 0xDC00 || low > 0xDFFF)
        return take_itself(s, out, n);
    *n = put_character(0x10000 + (((uint32_t)unit - 0xD800) << 10) + ((uint32_t)low - 0xDC00), out);
    return 12;
}

/* RFC 8259 section 7; which characters are escaped and how is each writer's own choice. */
static size_t take_json(const char *s, size_t len, char out[4], size_t *n)
{
    static const char letters[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    if (*s != '\\')
        return take_itself(s, out, n);
    if (len == 1)
        return 0;
    if (s[1] == 'u')
        return take_unit(s, len, out, n);
    const char *letter = memchr(letters, s[1], sizeof letters - 1);
    if (!letter)
        return take_itself(s, out, n);
    out[0] = meant[letter - letters];
    *n = 1;
    return 2;
}

/* RFC 3986 2.1; and a space reads as the plus that a form makes of it, as in HIDDEN_PLUS. */
static size_t take_percent(const char *s, size_t len, char out[4], size_t *n)
{
    int32_t byte = *s == '%' ? take_hex(s + 1, len - 1, 2) : *s == ' ' ? '+' : HEX_NONE;
    if (byte == HEX_ENDS)
        return 0;
    if (byte == HEX_NONE)
        return take_itself(s, out, n);
    out[0] = (char)(byte == ' ' ? '+' : byte);
    *n = 1;
    return *s == '%' ? 3 : 1;
}

/* false: it reads as before. cut: an escape at the end that is not whole has lost the rest. */
static bool read_through(struct reading *r, hidden_take one, bool cut)
{
    uint32_t end = r->from[r->len];
    size_t to = 0;
    bool changed = false;

    for (size_t i = 0, taken; i < r->len; i += taken) {
        uint32_t from = r->from[i];
        char out[4];
        size_t n = 0;
        taken = one(r->bytes + i, r->len - i, out, &n);
        if (taken == 0 && cut)
            break;
        if (taken == 0)
            taken = take_itself(r->bytes + i, out, &n);
        changed |= taken > 1 || out[0] != r->bytes[i];
        for (size_t k = 0; k < n; k++, to++) { /* never more than was taken */
            r->bytes[to] = out[k];
            r->from[to] = from;
        }
    }
    changed |= to < r->len;
    r->len = to;
    r->from[to] = end;
    return changed;
}

/* ---- looking for them ---------------------------------------------------------------------------------------------------- */

struct search {
    const struct auth_hidden *hidden;
    size_t count;
    enum hidden_cut cut;
    bool begins[256]; /* a word begins with this byte */
    uint32_t *ends;   /* of the text: where the longest word that begins at this byte ends; 0: none does */
};

static const char *word_at(const struct search *s, size_t i)
{
    const struct auth_hidden *h = &s->hidden[i / (HIDDEN_AGES * HIDDEN_FORMS)];
    return h->form[i / HIDDEN_FORMS % HIDDEN_AGES][i % HIDDEN_FORMS];
}

static size_t match_beginning(const char *word, struct slice text)
{
    size_t n = 0;
    while (n < text.len && word[n] == text.data[n])
        n++;
    return n >= HIDDEN_PART_MIN ? n : 0;
}

/* How many bytes at the start of text are this word. */
static size_t match_word(const char *word, struct slice text, enum hidden_cut cut)
{
    if (!word || *word != *text.data)
        return 0;
    size_t n = strlen(word);
    if (n <= text.len && memcmp(word, text.data, n) == 0)
        return n;
    if (cut == HIDDEN_CUT_ANYWHERE)
        return match_beginning(word, text);
    bool all_is = cut == HIDDEN_CUT_AT_END && text.len < n && memcmp(word, text.data, text.len) == 0;
    return all_is && text.len >= HIDDEN_PART_MIN ? text.len : 0;
}

static size_t match_any(const struct search *s, struct slice text)
{
    size_t longest = 0;
    for (size_t i = 0; i < s->count * HIDDEN_AGES * HIDDEN_FORMS; i++) {
        size_t n = match_word(word_at(s, i), text, s->cut);
        longest = n > longest ? n : longest;
    }
    return longest;
}

static void look(struct search *s, const struct reading *r)
{
    for (size_t i = 0; i < r->len; i++) {
        if (!s->begins[(unsigned char)r->bytes[i]])
            continue;
        size_t n = match_any(s, (struct slice){r->bytes + i, r->len - i});
        size_t end = i + n;
        while (n && end < r->len && r->from[end] == r->from[end - 1]) /* inside of an escape */
            end++;
        if (n && r->from[end] > s->ends[r->from[i]])
            s->ends[r->from[i]] = r->from[end];
    }
}

/* As it stands, through one layer of JSON, through two (an answer quoted in an answer), and through a path's or a form's escapes in them. */
static void look_through(struct search *s, struct reading *r)
{
    static const hidden_take layers[] = {take_json, take_json, take_percent};
    look(s, r);
    for (size_t i = 0; i < ARRAY_LEN(layers); i++)
        if (read_through(r, layers[i], s->cut != HIDDEN_WHOLE))
            look(s, r);
}

static int write_rest(const uint32_t *ends, struct slice text, struct buf *out)
{
    size_t plain = 0; /* where the text since the last hit begins */
    for (size_t i = 0; i < text.len;) {
        size_t end = ends[i];
        for (size_t k = i + 1; k < end; k++) /* words that lie over each other go together */
            end = ends[k] > end ? ends[k] : end;
        if (end == 0) {
            i++;
            continue;
        }
        if (buf_append(out, text.data + plain, i - plain) < 0 || buf_puts(out, "[redacted]") < 0)
            return -1;
        i = plain = end;
    }
    return text.len > plain ? buf_append(out, text.data + plain, text.len - plain) : 0;
}

int auth_hidden_redact(const struct auth_hidden hidden[], size_t count, struct slice text,
                       enum hidden_cut cut, struct buf *out)
{
    struct search s = {.hidden = hidden, .count = count, .cut = cut};
    struct reading r = {.len = text.len};

    if (text.len == 0)
        return 0;
    for (size_t i = 0; i < count * HIDDEN_AGES * HIDDEN_FORMS; i++)
        if (word_at(&s, i))
            s.begins[(unsigned char)*word_at(&s, i)] = true;
    ENSURE(text.len < UINT32_MAX);
    r.bytes = malloc(text.len);
    r.from = malloc((text.len + 1) * sizeof *r.from);
    s.ends = calloc(text.len, sizeof *s.ends);
    ENSURE(r.bytes && r.from && s.ends);
    memcpy(r.bytes, text.data, text.len);
    for (size_t i = 0; i <= text.len; i++)
        r.from[i] = (uint32_t)i;
    look_through(&s, &r);
    int rc = write_rest(s.ends, text, out);
    explicit_bzero(r.bytes, text.len);
    free(r.bytes);
    free(r.from);
    free(s.ends);
    return rc;
}
