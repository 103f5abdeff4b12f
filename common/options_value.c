/* One option's value: from the text a user writes into the program's struct, and back. */
#include "common/options_value.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

#include "common/clock.h"
#include "common/options_file.h"

struct unit {
    const char *name;
    int64_t factor;
};
/* Smallest first. */
static const struct unit time_units[] = {
    {"ns", 1},
    {"us", NS_PER_US},
    {"ms", NS_PER_MS},
    {"s", NS_PER_S},
    {"m", 60 * NS_PER_S},
    {"h", 3600 * NS_PER_S},
    {"d", 86400 * NS_PER_S},
};
static const struct unit byte_units[] = {
    {"", 1},
    {"KiB", INT64_C(1) << 10},
    {"MiB", INT64_C(1) << 20},
    {"GiB", INT64_C(1) << 30},
    {"TiB", INT64_C(1) << 40},
};

static int parse_int(const char *text, int64_t *ret_n, const char **ret_rest)
{
    if ((*text < '0' || *text > '9') && !(*text == '-' && text[1] >= '0' && text[1] <= '9'))
        return -1;
    char *end;
    errno = 0;
    long long n = strtoll(text, &end, 10);
    if (errno)
        return -1;
    *ret_n = n;
    *ret_rest = end;
    return 0;
}

/* A count and one of the units. */
static int parse_unit(const char *text, const struct unit *units, size_t count, int64_t *ret_n)
{
    const char *rest;
    int64_t n;
    if (*text == '-' || parse_int(text, &n, &rest) < 0)
        return -1;
    for (size_t i = 0; i < count; i++) {
        if (strcmp(rest, units[i].name) != 0)
            continue;
        int64_t product;
        if (__builtin_mul_overflow(n, units[i].factor, &product))
            return -1;
        *ret_n = product;
        return 0;
    }
    return -1;
}

int options_parse_duration(const char *text, int64_t *ret_ns, struct err *err)
{
    if (parse_unit(text, time_units, ARRAY_LEN(time_units), ret_ns) < 0)
        return err_set(err, ERR_PERMANENT,
                       "\"%.64s\" is not a time: a number and us, ms, s, m, h or d, like 250ms", text);
    return 0;
}

int options_parse_bytes(const char *text, int64_t *ret_bytes, struct err *err)
{
    if (parse_unit(text, byte_units, ARRAY_LEN(byte_units), ret_bytes) < 0)
        return err_set(err, ERR_PERMANENT,
                       "\"%.64s\" is not a size: a number of bytes, or with KiB, MiB or GiB, like 64KiB",
                       text);
    return 0;
}

static void format_unit(int64_t n, const struct unit *units, size_t count, struct buf *out)
{
    size_t i = count - 1;
    while (i > 0 && (n == 0 || n % units[i].factor != 0))
        i--;
    if (n == 0 && units == time_units)
        i = 3; /* "0s" */
    buf_printf(out, "%lld%s", (long long)(n / units[i].factor), units[i].name);
}

static void format_int(const struct option *o, int64_t n, struct buf *out)
{
    if (o->type == OPTION_DURATION)
        format_unit(n, time_units, ARRAY_LEN(time_units), out);
    else if (o->type == OPTION_BYTES)
        format_unit(n, byte_units, ARRAY_LEN(byte_units), out);
    else
        buf_printf(out, "%lld", (long long)n);
}

void options_value_range(const struct option *o, struct buf *out)
{
    if (o->type != OPTION_INT && o->type != OPTION_DURATION && o->type != OPTION_BYTES)
        return;
    format_int(o, o->min, out);
    buf_puts(out, " to ");
    format_int(o, o->max, out);
}

static int set_int(const struct option *o, const char *text, int64_t *into, struct err *err)
{
    int64_t n = 0;
    if (o->type == OPTION_DURATION) {
        if (options_parse_duration(text, &n, err) < 0)
            return -1;
    } else if (o->type == OPTION_BYTES) {
        if (options_parse_bytes(text, &n, err) < 0)
            return -1;
    } else {
        const char *rest = "";
        if (parse_int(text, &n, &rest) < 0 || *rest)
            return err_set(err, ERR_PERMANENT, "\"%.64s\" is not a whole number", text);
    }
    if (n < o->min || n > o->max) {
        struct buf range;
        buf_init(&range, 128);
        options_value_range(o, &range);
        err_set(err, ERR_PERMANENT, "\"%.64s\" is out of range, which is %s", text, buf_str(&range));
        buf_done(&range);
        return -1;
    }
    *into = n;
    return 0;
}

static const char *const bool_words[] = {"false", "true", "no", "yes",
                                         "off",   "on",   "0",  "1"}; /* odd index: true */

static int bool_word(const char *text)
{
    for (size_t i = 0; i < ARRAY_LEN(bool_words); i++)
        if (strcasecmp(text, bool_words[i]) == 0)
            return (int)i;
    return -1;
}

bool options_value_is_bool(const char *text)
{
    return bool_word(text) >= 0;
}

static int set_bool(const char *text, bool *into, struct err *err)
{
    int word = bool_word(text);
    if (word < 0)
        return err_set(err, ERR_PERMANENT, "\"%.64s\" is neither true nor false", text);
    *into = word % 2 == 1;
    return 0;
}

static int set_ratio(const char *text, double *into, struct err *err)
{
    size_t digits = strspn(text, "0123456789.");
    bool percent = strcmp(text + digits, "%") == 0;
    char *end = NULL;
    double value = strtod(text, &end); /* no program sets a locale, so the point is a point */

    if (digits == 0 || (text[digits] && !percent) || end != text + digits)
        return err_set(err, ERR_PERMANENT, "\"%.64s\" is not a share: write 0.5 or 50%%", text);
    if (percent)
        value /= 100;
    if (value > 1)
        return err_set(err, ERR_PERMANENT, "\"%.64s\" is out of range, which is 0 to 1", text);
    *into = value;
    return 0;
}

static int set_enum(const struct option *o, const char *text, int *into, struct err *err)
{
    size_t len = strlen(text);
    const char *word = o->unit;
    for (int i = 0; len > 0; i++) {
        size_t word_len = strcspn(word, "|");
        if (word_len == len && memcmp(word, text, len) == 0) {
            *into = i;
            return 0;
        }
        if (word[word_len] == '\0')
            break;
        word += word_len + 1;
    }
    return err_set(err, ERR_PERMANENT, "\"%.64s\" is not one of %s", text, o->unit);
}

static int set_string(const struct option *o, const char *text, void *into, struct err *err)
{
    bool plain = o->type == OPTION_STRING; /* a secret may be anything but empty */
    size_t len = strlen(text);
    size_t min = plain ? (size_t)o->min : 1;
    size_t max = plain && o->max > 0 ? (size_t)o->max : OPTIONS_TEXT_BYTES_MAX;

    if (len < min && min == 1)
        return err_set(err, ERR_PERMANENT, "must not be empty");
    if (len < min)
        return err_set(err, ERR_PERMANENT, "must have at least %zu characters", min);
    if (len > max)
        return err_set(err, ERR_PERMANENT, "has more than %zu bytes", max);
    for (size_t i = 0; i < len && plain; i++)
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7F)
            return err_set(err, ERR_PERMANENT, "carries control characters");
    char *copy = strdup(text);
    if (!copy)
        return err_set(err, ERR_TEMPORARY, "no memory");
    options_value_free(o, into);
    *(char **)(void *)((char *)into + o->offset) = copy;
    return 0;
}

static int check_item(const char *item, struct err *err)
{
    if (strlen(item) > OPTIONS_ITEM_BYTES_MAX)
        return err_set(err, ERR_PERMANENT, "\"%.64s…\" has more than %d bytes", item, OPTIONS_ITEM_BYTES_MAX);
    for (const char *c = item; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7F)
            return err_set(err, ERR_PERMANENT, "carries control characters");
    return 0;
}

static int list_add(const struct option *o, struct option_list *list, const char *item, struct err *err)
{
    if (*item == '\0')
        return 0;
    if (list->count == (size_t)o->max)
        return err_set(err, ERR_PERMANENT, "more than %lld of them", (long long)o->max);
    if (check_item(item, err) < 0)
        return -1;
    char **items = reallocarray(list->items, list->count + 1, sizeof *items);
    if (!items)
        return err_set(err, ERR_TEMPORARY, "no memory");
    list->items = items;
    items[list->count] = strdup(item);
    if (!items[list->count])
        return err_set(err, ERR_TEMPORARY, "no memory");
    list->count++;
    return 0;
}

/* Each line is one of them. */
static int set_list(const struct option *o, const char *text, void *into, struct err *err)
{
    char *copy = strdup(text);
    int rc = copy ? 0 : err_set(err, ERR_TEMPORARY, "no memory");
    char *next = copy;

    options_value_free(o, into);
    for (char *line; rc == 0 && (line = strsep(&next, "\n")) != NULL;)
        rc = list_add(o, (void *)((char *)into + o->offset), options_trim(line), err);
    free(copy);
    return rc;
}

int options_value_set(const struct option *o, const char *text, void *into, struct err *err)
{
    void *member = (char *)into + o->offset;
    switch (o->type) {
    case OPTION_STRING:
    case OPTION_SECRET:
        return set_string(o, text, into, err);
    case OPTION_INT:
    case OPTION_DURATION:
    case OPTION_BYTES:
        return set_int(o, text, member, err);
    case OPTION_BOOL:
        return set_bool(text, member, err);
    case OPTION_RATIO:
        return set_ratio(text, member, err);
    case OPTION_ENUM:
        return set_enum(o, text, member, err);
    case OPTION_LIST:
        return set_list(o, text, into, err);
    }
    ENSURE(!"an option type");
    return -1;
}

static void free_list(struct option_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        free(list->items[i]);
    free(list->items);
    *list = (struct option_list){NULL, 0};
}

void options_value_free(const struct option *o, void *into)
{
    if (o->type == OPTION_LIST)
        free_list((void *)((char *)into + o->offset));
    if (o->type != OPTION_STRING && o->type != OPTION_SECRET)
        return;
    char **member = (char **)(void *)((char *)into + o->offset);
    if (*member && o->type == OPTION_SECRET)
        explicit_bzero(*member, strlen(*member));
    free(*member);
    *member = NULL;
    if (o->type == OPTION_SECRET) {
        char **path = (char **)(void *)((char *)into + o->path_offset);
        free(*path);
        *path = NULL;
    }
}

static void format_enum(const struct option *o, int index, struct buf *out)
{
    const char *word = o->unit;
    for (int i = 0; i < index; i++)
        word += strcspn(word, "|") + 1;
    buf_append(out, word, strcspn(word, "|"));
}

static void format_list(const struct option_list *list, struct buf *out)
{
    for (size_t i = 0; i < list->count; i++)
        buf_printf(out, "%s%s", i ? "\n" : "", list->items[i]);
}

void options_value_format(const struct option *o, const void *values, struct buf *out)
{
    const void *member = (const char *)values + o->offset;
    switch (o->type) {
    case OPTION_SECRET:
        break;
    case OPTION_STRING:
        buf_puts(out, *(char *const *)member ? *(char *const *)member : "");
        break;
    case OPTION_INT:
    case OPTION_DURATION:
    case OPTION_BYTES:
        format_int(o, *(const int64_t *)member, out);
        break;
    case OPTION_BOOL:
        buf_puts(out, *(const bool *)member ? "true" : "false");
        break;
    case OPTION_RATIO:
        buf_printf(out, "%.10g", *(const double *)member);
        break;
    case OPTION_ENUM:
        format_enum(o, *(const int *)member, out);
        break;
    case OPTION_LIST:
        format_list(member, out);
        break;
    }
}
