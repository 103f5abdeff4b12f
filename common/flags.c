/* Parses the flags of verbs by a table, and writes what the table says. */
#include "common/flags.h"

#include <string.h>

/* The flag that word names, with *ret_value behind its '=' or NULL. */
static const struct flag *flag_of(const struct flag_set *set, const char *word, const char **ret_value)
{
    for (size_t i = 0; i < set->count; i++) {
        size_t len = strlen(set->flags[i].name);
        if (strncmp(word, set->flags[i].name, len) != 0 || (word[len] != '\0' && word[len] != '='))
            continue;
        *ret_value = word[len] == '=' ? word + len + 1 : NULL;
        return &set->flags[i];
    }
    return NULL;
}

static int take_flag(void *into, const struct flag *flag, const char *value, struct err *err)
{
    char *member = (char *)into + flag->offset;

    if (flag->kind == FLAG_BOOL) {
        if (value)
            return err_set(err, ERR_PERMANENT, "%s takes no value, \"%s\" was given", flag->name, value);
        *(bool *)(void *)member = true;
        return 0;
    }
    if (!value || !*value)
        return err_set(err, ERR_PERMANENT, "%s needs a value: %s %s", flag->name, flag->name, flag->value);
    memcpy(member, &value, sizeof(value));
    return 0;
}

int flags_take(const struct flag_set *set, void *into, int *argc, char **argv, unsigned *ret_given,
               bool *ret_help, struct err *err)
{
    int kept = 1;

    ENSURE(set->count <= 32);
    for (int i = 1; i < *argc; i++) {
        const char *value = NULL;
        const struct flag *flag = flag_of(set, argv[i], &value);
        if (!flag) {
            *ret_help = *ret_help || strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0;
            argv[kept++] = argv[i];
            continue;
        }
        if (flag->kind == FLAG_WORD && !value && i + 1 < *argc)
            value = argv[++i];
        *ret_given |= 1u << (flag - set->flags);
        if (take_flag(into, flag, value, err) < 0)
            return -1;
    }
    *argc = kept;
    argv[kept] = NULL;
    return 0;
}

int flags_check(const struct flag_set *set, unsigned given, unsigned verb, struct err *err)
{
    for (size_t i = 0; i < set->count; i++)
        if ((given & (1u << i)) && !(set->flags[i].verbs & (1u << verb)))
            return err_set(err, ERR_PERMANENT, "%s does not take %s", set->verbs[verb], set->flags[i].name);
    return 0;
}

void flags_help(const struct flag_set *set, unsigned verb, struct buf *out)
{
    for (size_t i = 0; i < set->count; i++) {
        const struct flag *flag = &set->flags[i];
        char left[64];
        if (!(flag->verbs & (1u << verb)))
            continue;
        snprintf(left, sizeof(left), "%s%s%s", flag->name, flag->value ? " " : "",
                 flag->value ? flag->value : "");
        buf_printf(out, "  %-18s %s\n", left, flag->prose);
    }
}

static void put_verbs(const struct flag_set *set, unsigned verbs, struct buf *out)
{
    const char *comma = "";

    for (unsigned v = 0; v < set->verb_count; v++) {
        if (!(verbs & (1u << v)))
            continue;
        buf_printf(out, "%s%s", comma, set->verbs[v]);
        comma = ", ";
    }
}

void flags_mdoc(const struct flag_set *set, struct buf *out)
{
    buf_puts(out, ".Sh VERB FLAGS\n.Bl -tag -width Ds\n");
    for (size_t i = 0; i < set->count; i++) {
        const struct flag *flag = &set->flags[i];
        buf_printf(out, ".It Fl -%s%s%s\n(", flag->name + 2, flag->value ? " Ar " : "",
                   flag->value ? flag->value : "");
        put_verbs(set, flag->verbs, out);
        buf_puts(out, ")\n");
        for (const char *c = flag->prose; *c; c++)
            *c == '\\' ? buf_puts(out, "\\e") : buf_append(out, c, 1);
        buf_puts(out, ".\n");
    }
    buf_puts(out, ".El\n");
}
