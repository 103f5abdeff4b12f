/* Writes what a table of options says to people: help, the values in force, a sample file, the manual's section. */
#include <ctype.h>
#include <string.h>

#include "common/options_names.h"
#include "common/options_value.h"
#include "common/redact.h"

#define COLUMNS 80

/* Break text between words; every line begins with `indent`. */
static void put_wrapped(struct buf *out, const char *indent, const char *text)
{
    size_t column = 0;
    while (*text) {
        size_t len = strcspn(text, " ");
        if (column && column + 1 + len > COLUMNS) {
            buf_puts(out, "\n");
            column = 0;
        }
        buf_puts(out, column ? " " : indent);
        column += column ? 1 : strlen(indent);
        buf_append(out, text, len);
        column += len;
        text += len;
        text += strspn(text, " ");
    }
    buf_puts(out, "\n");
}

/* "Default 8, 1 to 100." */
static void put_limits(struct buf *out, const struct option *o)
{
    struct buf range;
    buf_init(&range, 128);
    options_value_range(o, &range);
    if (!o->dflt)
        buf_puts(out, "Required");
    else if (*o->dflt == '\0')
        buf_puts(out, "Default: none");
    else
        buf_printf(out, "Default %s", o->dflt);
    if (range.len)
        buf_printf(out, ", %s", range.data);
    buf_puts(out, ".");
    buf_done(&range);
}

/* The name under which it is written in files and flags: that of a secret is its file's. */
static const char *written_name(const struct option *o, char out[OPTIONS_NAME_BYTES])
{
    snprintf(out, OPTIONS_NAME_BYTES, "%.60s%s", o->name, o->type == OPTION_SECRET ? "_file" : "");
    return out;
}

static const char *written_unit(const struct option *o)
{
    if (o->type == OPTION_SECRET)
        return "PATH";
    return o->type == OPTION_BOOL ? "true|false" : o->unit;
}

/* ---- help ----------------------------------------------------------------------------------------------------- */

static void help_option(struct buf *out, const struct option *o)
{
    char name[OPTIONS_NAME_BYTES], flag[OPTIONS_NAME_BYTES];
    struct buf limits;

    buf_printf(out, "  %s %s\n", options_spell(ON_COMMAND_LINE, written_name(o, name), flag),
               written_unit(o));
    put_wrapped(out, "      ", o->prose);
    buf_init(&limits, 65536);
    put_limits(&limits, o);
    put_wrapped(out, "      ", buf_str(&limits));
    buf_done(&limits);
}

static const char *print_config_does(const struct option_set *set)
{
    return set->check ? "Check the configuration, print the values in force, and end."
                      : "Check each value, print those in force, and end.";
}

static const char *print_config_leaves(const struct option_set *set)
{
    return set->check ? "Settings of libraries are checked at the start only."
                      : "How they go together is checked at the start only.";
}

static void help_general(struct buf *out, const struct option_set *set)
{
    buf_puts(out, "\nGeneral:\n"
                  "  --config FILE          Read options from this file first (also TANDEM_CONFIG).\n");
    if (set->kafka)
        buf_puts(out, "  --kafka NAME=VALUE     Hand a setting to librdkafka under its own name.\n");
    if (set->postgres)
        buf_puts(out, "  --postgres NAME=VALUE  Hand a setting to libpq under its own name.\n");
    buf_printf(out, "  --print-config         %s\n                         %s\n", print_config_does(set),
               print_config_leaves(set));
    buf_puts(out, "  --sample-config        Print a commented file with all defaults, and end.\n"
                  "  --mdoc                 Print the OPTIONS section of the manual page, and end.\n"
                  "  --version, -V          Print the version, and end.\n"
                  "  --help, -h             Print this, and end.\n");
}

static bool has_secret(const struct option_set *set)
{
    for (size_t i = 0; i < set->option_count; i++)
        if (set->options[i].name && set->options[i].type == OPTION_SECRET)
            return true;
    return false;
}

static void help_places(struct buf *out, const struct option_set *set)
{
    buf_puts(out, "\nAn option --some-name is also the variable TANDEM_SOME_NAME and `some_name = VALUE`\n"
                  "in the file. Flags win over variables, variables over the file.\n");
    if (has_secret(set))
        buf_puts(out, "A secret comes from a file: --some-name-file PATH, TANDEM_SOME_NAME_FILE, or\n"
                      "`some_name_file = PATH`; or it stands in the variable TANDEM_SOME_NAME itself.\n");
}

void options_help(const struct option_set *set, struct buf *out)
{
    bool titled = false;

    buf_printf(out, "%s: %s\n\nUsage: %s\n", set->program, set->summary, set->usage);
    for (size_t i = 0; i < set->option_count; i++) {
        const struct option *o = &set->options[i];
        if (!o->name || !titled)
            buf_printf(out, "\n%s:\n", o->name ? "Options" : o->prose);
        titled = true;
        if (o->name)
            help_option(out, o);
    }
    help_general(out, set);
    help_places(out, set);
    if (set->help_tail)
        buf_printf(out, "\n%s%s", set->help_tail,
                   set->help_tail[strlen(set->help_tail) - 1] == '\n' ? "" : "\n");
}

/* ---- files ---------------------------------------------------------------------------------------------------- */

static void print_list(struct buf *out, const struct option *o, const void *values)
{
    const struct option_list *list = (const void *)((const char *)values + o->offset);
    for (size_t i = 0; i < list->count; i++)
        buf_printf(out, "%s = %s\n", o->name, list->items[i]);
    if (list->count == 0)
        buf_printf(out, "%s =\n", o->name);
}

/* With a password it is no setting, but a comment. */
static void print_value(struct buf *out, const char *name, const char *value)
{
    struct buf shown;

    buf_init(&shown, 4 * (size_t)OPTIONS_TEXT_BYTES_MAX);
    redact_text(&shown, value);
    if (strcmp(value, buf_str(&shown)) == 0)
        buf_printf(out, "%s =%s%s\n", name, *value ? " " : "", value);
    else
        buf_printf(out, "# the password is not shown\n# %s = %s\n", name, buf_str(&shown));
    buf_done(&shown);
}

static void print_option(struct buf *out, const struct option *o, const void *values)
{
    struct buf value;

    if (o->type == OPTION_SECRET) {
        const char *secret = *(char *const *)(const void *)((const char *)values + o->offset);
        buf_printf(out, "# %s: %s\n", o->name, secret ? "(set)" : "(not set)");
        return;
    }
    if (o->type == OPTION_LIST) {
        print_list(out, o, values);
        return;
    }
    buf_init(&value, OPTIONS_TEXT_BYTES_MAX);
    options_value_format(o, values, &value);
    print_value(out, o->name, buf_str(&value));
    buf_done(&value);
}

static void print_pairs(struct buf *out, const char *section, const struct option_pairs *pairs)
{
    if (!pairs || pairs->count == 0)
        return;
    buf_printf(out, "\n[%s]\n", section);
    for (size_t i = 0; i < pairs->count; i++) {
        const struct option_pair *p = &pairs->items[i];
        if (redact_is_secret_name(p->name))
            buf_printf(out, "# %s: (set)\n", p->name);
        else if (strpbrk(p->value, "\r\n")) /* its second line would be read as another setting */
            buf_printf(out, "# several lines are not shown\n# %s: (set)\n", p->name);
        else
            print_value(out, p->name, p->value);
    }
}

void options_print(const struct option_set *set, const void *values, const struct option_pairs *kafka,
                   const struct option_pairs *postgres, struct buf *out)
{
    buf_printf(out, "# %s: the values in force\n", set->program);
    for (size_t i = 0; i < set->option_count; i++) {
        const struct option *o = &set->options[i];
        if (o->name)
            print_option(out, o, values);
        else
            buf_printf(out, "\n# %s\n", o->prose);
    }
    print_pairs(out, "kafka", kafka);
    print_pairs(out, "postgres", postgres);
}

void options_sample(const struct option_set *set, struct buf *out)
{
    char name[OPTIONS_NAME_BYTES];

    buf_printf(out, "# %s: %s\n# Every setting below is the default: take its '#' away to change it.\n",
               set->program, set->summary);
    for (size_t i = 0; i < set->option_count; i++) {
        const struct option *o = &set->options[i];
        if (!o->name) {
            buf_printf(out, "\n# ---- %s ----\n", o->prose);
            continue;
        }
        buf_puts(out, "\n");
        put_wrapped(out, "# ", o->prose);
        buf_printf(out, "# %s. ", written_unit(o));
        put_limits(out, o);
        buf_printf(out, "\n#%s =%s%s\n", written_name(o, name), o->dflt && *o->dflt ? " " : "",
                   o->dflt ? o->dflt : "");
    }
    if (set->kafka)
        buf_puts(
            out,
            "\n# Settings of librdkafka under their own names.\n[kafka]\n#security.protocol = SASL_SSL\n");
    if (set->postgres)
        buf_puts(out, "\n# Settings of libpq under their own names.\n[postgres]\n#sslmode = verify-full\n");
}

/* ---- manual --------------------------------------------------------------------------------------------------- */

/* Running text for mdoc: no character is taken for a command, and a sentence begins on a line of its own. */
static void mdoc_text(struct buf *out, const char *text)
{
    bool line_start = true;
    for (const char *c = text; *c; c++) {
        if (line_start && (*c == '.' || *c == '\''))
            buf_puts(out, "\\&");
        line_start = false;
        if (*c == '\\') {
            buf_puts(out, "\\e");
        } else if (*c == ' ' && c > text && c[-1] == '.' && isupper((unsigned char)c[1])) {
            buf_puts(out, "\n");
            line_start = true;
        } else {
            buf_append(out, c, 1);
        }
    }
    buf_puts(out, "\n");
}

static void mdoc_item(struct buf *out, const char *flag, const char *unit)
{
    buf_printf(out, ".It Fl Fl %s", flag);
    if (unit)
        buf_printf(out, " Ar \"%s\"", unit);
    buf_puts(out, "\n");
}

static void mdoc_option(struct buf *out, const struct option *o)
{
    char name[OPTIONS_NAME_BYTES], flag[OPTIONS_NAME_BYTES];
    struct buf limits;

    mdoc_item(out, options_spell(ON_COMMAND_LINE, written_name(o, name), flag) + 2, written_unit(o));
    mdoc_text(out, o->prose);
    buf_init(&limits, 65536);
    put_limits(&limits, o);
    mdoc_text(out, buf_str(&limits));
    buf_done(&limits);
}

static void mdoc_general(const struct option_set *set, struct buf *out)
{
    mdoc_item(out, "config", "FILE");
    mdoc_text(out, "Read options from this file first.");
    if (set->kafka) {
        mdoc_item(out, "kafka", "NAME=VALUE");
        mdoc_text(out, "Hand a setting to librdkafka under its own name.");
    }
    if (set->postgres) {
        mdoc_item(out, "postgres", "NAME=VALUE");
        mdoc_text(out, "Hand a setting to libpq under its own name.");
    }
    mdoc_item(out, "print-config", NULL);
    mdoc_text(out, print_config_does(set));
    mdoc_text(out, print_config_leaves(set));
    mdoc_item(out, "sample-config", NULL);
    mdoc_text(out, "Print a commented file with all defaults, and end.");
    mdoc_item(out, "mdoc", NULL);
    mdoc_text(out, "Print this section, and end.");
    mdoc_item(out, "version", NULL);
    mdoc_text(out, "Print the version, and end.");
    mdoc_item(out, "help", NULL);
    mdoc_text(out, "Print a summary of the options, and end.");
}

void options_mdoc(const struct option_set *set, struct buf *out)
{
    bool open = false;

    buf_puts(out, ".Sh OPTIONS\n");
    for (size_t i = 0; i < set->option_count; i++) {
        const struct option *o = &set->options[i];
        if (!o->name) {
            buf_printf(out, "%s.Ss %s\n.Bl -tag -width Ds\n", open ? ".El\n" : "", o->prose);
            open = true;
            continue;
        }
        if (!open)
            buf_puts(out, ".Bl -tag -width Ds\n");
        open = true;
        mdoc_option(out, o);
    }
    buf_printf(out, "%s.Ss General\n.Bl -tag -width Ds\n", open ? ".El\n" : "");
    mdoc_general(set, out);
    buf_puts(out, ".El\n");
}
