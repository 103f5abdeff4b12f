/* Reads the list of source topics out of the option. */
#include "worker/worker_sources.h"

#include <string.h>

#define TOPIC_NAME_MAX 249 /* Kafka's */
#define TOPIC_LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"

static int name_check(const char *name, struct err *err)
{
    size_t good = strspn(name, TOPIC_LETTERS);

    if (*name == '\0')
        return err_set(err, ERR_PERMANENT,
                       "topic: there is nothing between two commas or at an end: give names like "
                       "\"tandem.orders, tandem.customers\"");
    if (name[good] != '\0' || good > TOPIC_NAME_MAX)
        return err_set(
            err, ERR_PERMANENT,
            "topic: \"%.250s\" can be no topic: at most %d letters, digits, \".\", \"_\" and \"-\"", name,
            TOPIC_NAME_MAX);
    return 0;
}

static int name_add(struct sources *s, const char *name, struct err *err)
{
    if (name_check(name, err) < 0)
        return -1;
    if (sources_find(s, name) >= 0)
        return err_set(err, ERR_PERMANENT, "topic: \"%s\" is there twice", name);
    if (s->count == SOURCES_MAX)
        return err_set(
            err, ERR_PERMANENT,
            "topic: more than %d topics: run a second worker, with a group of its own, for the others",
            SOURCES_MAX);
    s->topics[s->count++] = name;
    return 0;
}

int sources_parse(const char *list, struct sources *ret, struct err *err)
{
    struct sources s = {.text = strdup(list)};

    ENSURE(s.text);
    for (char *at = s.text; at;) {
        char *name = at, *comma = strchr(at, ',');
        at = comma ? comma + 1 : NULL;
        char *end = comma ? comma : name + strlen(name);
        while (end > name && end[-1] == ' ')
            end--;
        *end = '\0';
        name += strspn(name, " ");
        if (name_add(&s, name, err) < 0) {
            sources_done(&s);
            return -1;
        }
    }
    *ret = s;
    return 0;
}

void sources_done(struct sources *s)
{
    free(s->text);
    *s = (struct sources){0};
}

/* FNV-1a, of which the sum does not know an order. */
uint32_t sources_mark(const struct sources *s)
{
    uint32_t sum = 0;

    for (int i = 0; i < s->count; i++) {
        uint32_t hash = 2166136261U;
        for (const char *at = s->topics[i]; *at; at++)
            hash = (hash ^ (unsigned char)*at) * 16777619U;
        sum += hash;
    }
    return sum;
}

int sources_find(const struct sources *s, const char *topic)
{
    for (int i = 0; i < s->count; i++)
        if (strcmp(s->topics[i], topic) == 0)
            return i;
    return -1;
}
