/* Breaks and indents the text of a JSON value by its brackets, commas and strings. */
#include <jansson.h>
#include <string.h>

#include "worker/dlq/dlq_pretty.h"
#include "worker/dlq/dlq_print.h"

#define INDENT_MAX 32 /* levels; deeper ones are not moved further right */

static void new_line(FILE *out, int depth)
{
    int spaces = 2 * (depth < INDENT_MAX ? depth : INDENT_MAX);
    fprintf(out, "\n  %*s", spaces, "");
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* Length of the string, number or word that starts at s. */
static size_t token_len(const char *s, size_t len)
{
    size_t i = 1;
    if (s[0] != '"') {
        while (i < len && !is_space(s[i]) && !strchr(",:]}", s[i]))
            i++;
        return i;
    }
    while (i < len && s[i] != '"')
        i += s[i] == '\\' ? 2 : 1;
    return i < len ? i + 1 : len;
}

/* What follows s[i] but spaces; '\0' at the end. */
static char next_mark(struct slice s, size_t i)
{
    for (i++; i < s.len; i++)
        if (!is_space(s.data[i]))
            return s.data[i];
    return '\0';
}

static void print_value(FILE *out, struct slice s)
{
    int depth = 0;
    bool empty = false; /* inside "{" that is followed by "}" at once */
    fputs("  ", out);
    for (size_t i = 0; i < s.len;) {
        char c = s.data[i];
        size_t len = 1;
        if (c == '}' || c == ']') {
            depth--;
            if (!empty)
                new_line(out, depth);
            fputc(c, out);
            empty = false;
        } else if (c == '{' || c == '[') {
            char next = next_mark(s, i);
            empty = next == '}' || next == ']';
            depth++;
            fputc(c, out);
            if (!empty)
                new_line(out, depth);
        } else if (c == ',') {
            fputc(c, out);
            new_line(out, depth);
        } else if (c == ':') {
            fputs(": ", out);
        } else if (!is_space(c)) {
            len = token_len(s.data + i, s.len - i);
            dlq_print_bytes(out, (struct slice){s.data + i, len});
        }
        i += len;
    }
    fputc('\n', out);
}

bool dlq_pretty_json(FILE *out, struct slice s)
{
    json_t *value = s.data ? json_loadb(s.data, s.len, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL) : NULL;
    if (!value)
        return false;
    json_decref(value);
    print_value(out, s);
    return true;
}
