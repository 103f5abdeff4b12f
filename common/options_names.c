/* The names of options as they are written in each place, and the nearest one to a misspelt one. */
#include "common/options_names.h"

#include <ctype.h>
#include <string.h>

const char *const options_serve_flags[OPTIONS_SERVE_FLAGS] = {
    "", "help", "version", "print-config", "sample-config", "mdoc"};

const char *options_spell(enum options_place place, const char *name, char out[OPTIONS_NAME_BYTES])
{
    static const char *const prefixes[] = {"", "TANDEM_", "--"};
    snprintf(out, OPTIONS_NAME_BYTES, "%s%s", prefixes[place], name);
    for (char *c = out + strlen(prefixes[place]); *c; c++) {
        if (place == ON_COMMAND_LINE && *c == '_')
            *c = '-';
        if (place == IN_ENVIRONMENT)
            *c = (char)toupper((unsigned char)*c);
    }
    return out;
}

size_t options_name_len(const char *text)
{
    size_t len = strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789._-");
    return len < OPTIONS_NAME_BYTES ? len : OPTIONS_NAME_BYTES;
}

/* Levenshtein's distance; long words count as far. */
static size_t distance(const char *a, const char *b)
{
    size_t row[OPTIONS_NAME_BYTES];
    size_t len = strlen(b);
    if (len >= OPTIONS_NAME_BYTES || strlen(a) >= OPTIONS_NAME_BYTES)
        return OPTIONS_NAME_BYTES;
    for (size_t j = 0; j <= len; j++)
        row[j] = j;
    for (size_t i = 1; a[i - 1]; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= len; j++) {
            size_t change = diagonal + (a[i - 1] != b[j - 1]);
            size_t skip = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
            diagonal = row[j];
            row[j] = change < skip ? change : skip;
        }
    }
    return row[len];
}

struct nearest {
    size_t distance;
    char word[OPTIONS_NAME_BYTES];
};

static void consider(struct nearest *best, const char *word, const char *candidate)
{
    size_t d = distance(word, candidate);
    if (d < best->distance) {
        best->distance = d;
        snprintf(best->word, sizeof(best->word), "%s", candidate);
    }
}

const char *options_nearest(const struct option_set *set, enum options_place place, const char *word,
                            char out[OPTIONS_NAME_BYTES])
{
    struct nearest best = {.distance = OPTIONS_NAME_BYTES};
    char name[OPTIONS_NAME_BYTES - 8], spelled[OPTIONS_NAME_BYTES];

    for (size_t i = 0; i < set->option_count; i++) {
        const struct option *o = &set->options[i];
        if (!o->name)
            continue;
        bool path = o->type == OPTION_SECRET;
        snprintf(name, sizeof(name), "%s%s", o->name, path ? "_file" : "");
        consider(&best, word, options_spell(place, name, spelled));
        if (path && place == IN_ENVIRONMENT)
            consider(&best, word, options_spell(place, o->name, spelled));
    }
    if (place != IN_FILE)
        consider(&best, word, options_spell(place, "config", spelled));
    for (size_t i = 1; place == ON_COMMAND_LINE && i < OPTIONS_SERVE_FLAGS; i++)
        consider(&best, word, options_spell(place, options_serve_flags[i], spelled));
    bool meant = *best.word && best.distance <= strlen(word) / 3; /* what is further away was not meant */
    snprintf(out, OPTIONS_NAME_BYTES, "%s", meant ? best.word : "");
    return out;
}

int options_unknown(const struct option_set *set, enum options_place place, const char *origin,
                    const char *word, struct err *err)
{
    char nearest[OPTIONS_NAME_BYTES];
    options_nearest(set, place, word, nearest);
    if (*nearest)
        err_set(err, ERR_PERMANENT, "unknown option \"%.64s\"; the nearest is %s, and %s --help tells more",
                word, nearest, set->program);
    else
        err_set(err, ERR_PERMANENT, "unknown option \"%.64s\"; %s --help tells more", word, set->program);
    if (origin)
        err_prefix(err, "%s: ", origin);
    return -1;
}

const struct option *options_find(const struct option_set *set, const char *name, bool *ret_is_path)
{
    for (size_t i = 0; i < set->option_count; i++) {
        const struct option *o = &set->options[i];
        if (!o->name)
            continue;
        size_t len = strlen(o->name);
        if (strncmp(name, o->name, len) != 0)
            continue;
        *ret_is_path = o->type == OPTION_SECRET && strcmp(name + len, "_file") == 0;
        if (name[len] == '\0' || *ret_is_path)
            return o;
    }
    return NULL;
}
