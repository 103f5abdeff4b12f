/* Looks an event's type up in the list of those that the destination takes. */
#include "worker/worker_types.h"

#include <ctype.h>
#include <string.h>

/* The next word of the list without the spaces around it; *at moves behind its comma, NULL: it was the last one. */
static struct slice next_word(const char **at)
{
    const char *from = *at, *comma = strchr(from, ',');
    const char *to = comma ? comma : from + strlen(from);

    *at = comma ? comma + 1 : NULL;
    while (from < to && *from == ' ')
        from++;
    while (to > from && to[-1] == ' ')
        to--;
    return (struct slice){from, (size_t)(to - from)};
}

static int word_check(struct slice word, struct err *err)
{
    const char *star = memchr(word.data, '*', word.len);

    if (word.len == 0)
        return err_set(err, ERR_PERMANENT,
                       "types: there is nothing between two commas or at an end: give types like "
                       "\"order.placed,invoice.*\"");
    if (star && star != word.data + word.len - 1)
        return err_set(err, ERR_PERMANENT,
                       "types: \"%.*s\" has its \"*\" not at the end: only a beginning can be given, like "
                       "\"order.*\"",
                       (int)word.len, word.data);
    for (size_t i = 0; i < word.len; i++) {
        unsigned char c = (unsigned char)word.data[i];
        if (isspace(c)) /* such a "type" would match nothing: every event would be skipped */
            return err_set(err, ERR_PERMANENT,
                           "types: \"%.*s\" is followed by white space and more: separate them by commas",
                           (int)i, word.data);
        if (c < 0x20 || c == 0x7F)
            return err_set(err, ERR_PERMANENT, "types: a control character can be in no event type");
    }
    return 0;
}

int types_check(const char *list, struct err *err)
{
    for (const char *at = *list ? list : NULL; at;)
        if (word_check(next_word(&at), err) < 0)
            return -1;
    return 0;
}

static bool word_takes(struct slice word, struct slice type)
{
    if (word.data[word.len - 1] == '*')
        return type.len >= word.len - 1 && memcmp(type.data, word.data, word.len - 1) == 0;
    return type.len == word.len && memcmp(type.data, word.data, word.len) == 0;
}

bool types_take(const char *list, struct slice type)
{
    if (*list == '\0')
        return true;
    for (const char *at = list; at;)
        if (word_takes(next_word(&at), type))
            return true;
    return false;
}
