/* Reads JSON through jansson with an offset in the place of each number, and writes it with the number in the place of each offset. */
#include "worker/targets/json_source.h"

#include <jansson.h>
#include <string.h>

#include "worker/json_scan.h"

#define OFFSET_DIGITS_MAX 20

/* ---- JSON text, piece by piece -------------------------------------------------------------------------------------------------- */

static bool begins_number(char c)
{
    return c == '-' || (c >= '0' && c <= '9');
}

static bool is_in_number(char c)
{
    return begins_number(c) || c == '+' || c == '.' || c == 'e' || c == 'E';
}

/* A string, all that could be one number, or what stands before the next of them. The text may be no JSON. */
static struct slice next_piece(struct slice rest)
{
    const char *s = rest.data;
    size_t len = 1;

    if (*s == '"') {
        while (len < rest.len && s[len] != '"')
            len += s[len] == '\\' ? 2 : 1;
        len = len < rest.len ? len + 1 : rest.len;
    } else if (begins_number(*s)) {
        while (len < rest.len && is_in_number(s[len]))
            len++;
    } else {
        while (len < rest.len && s[len] != '"' && !begins_number(s[len]))
            len++;
    }
    return (struct slice){s, len};
}

/* Copies the text; what begins like a number goes through `number`. */
static void copy_pieces(struct slice text, struct slice source, struct buf *out,
                        void (*number)(struct slice piece, struct slice source, struct buf *out))
{
    for (struct slice rest = text; rest.len > 0;) {
        struct slice piece = next_piece(rest);
        if (begins_number(*piece.data))
            number(piece, source, out);
        else
            (void)buf_append(out, piece.data, piece.len);
        rest = (struct slice){rest.data + piece.len, rest.len - piece.len};
    }
}

/* ---- reading ---------------------------------------------------------------------------------------------------------------------- */

/* "01" or "1-2" is no number, and stays: jansson has to refuse it. */
static void put_offset(struct slice piece, struct slice source, struct buf *out)
{
    const char *why;
    size_t at;

    if (json_scan_valid(piece, &why, &at))
        (void)buf_printf(out, "%zu", (size_t)(piece.data - source.data));
    else
        (void)buf_append(out, piece.data, piece.len);
}

/* jansson's own words would have the offsets in them. */
static int refused(struct slice text, const json_error_t *error, struct err *err)
{
    const char *why;
    size_t at;

    if (!json_scan_valid(text, &why, &at))
        return err_set(err, ERR_PERMANENT, "%s (byte %zu)", why, at);
    return err_set(err, ERR_PERMANENT, "%s", error->text);
}

int json_source_read(struct json_source *s, struct slice text, size_t flags, struct err *err)
{
    json_error_t error = {.text = ""};
    struct buf copy;

    *s = (struct json_source){.text = text};
    if (!text.data)
        return err_set(err, ERR_PERMANENT, "it is null");
    buf_init(&copy, (text.len + 1) * OFFSET_DIGITS_MAX);
    copy_pieces(text, text, &copy, put_offset);
    ENSURE(!copy.failed);
    s->root = json_loadb(buf_str(&copy), copy.len, flags, &error);
    buf_done(&copy);
    return s->root ? 0 : refused(text, &error, err);
}

void json_source_done(struct json_source *s)
{
    json_decref(s->root);
    *s = (struct json_source){.root = NULL};
}

/* ---- taking out ------------------------------------------------------------------------------------------------------------------- */

static struct slice number_at(struct slice source, size_t offset)
{
    ENSURE(offset < source.len);
    return next_piece((struct slice){source.data + offset, source.len - offset});
}

struct slice json_source_scalar(const struct json_source *s, const json_t *value)
{
    if (json_is_string(value))
        return (struct slice){json_string_value(value), json_string_length(value)};
    if (json_is_integer(value))
        return number_at(s->text, (size_t)json_integer_value(value));
    if (json_is_boolean(value))
        return json_is_true(value) ? SLICE_LIT("true") : SLICE_LIT("false");
    return (struct slice){NULL, 0};
}

static void put_number(struct slice piece, struct slice source, struct buf *out)
{
    struct slice number = number_at(source, (size_t)strtoull(piece.data, NULL, 10));
    (void)buf_append(out, number.data, number.len);
}

int json_source_write(const struct json_source *s, const json_t *value, struct buf *out)
{
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    struct buf whole;

    ENSURE(text);
    buf_init(&whole, out->limit);
    copy_pieces((struct slice){text, strlen(text)}, s->text, &whole, put_number);
    free(text);
    int r = whole.failed ? -1 : buf_append(out, whole.data, whole.len);
    buf_done(&whole);
    return r;
}
