/* Reads a program's options: the file, then the environment over it, then the flags over both. */
#include "common/options.h"

#include <ctype.h>
#include <string.h>

#include "common/log.h"
#include "common/options_file.h"
#include "common/options_names.h"
#include "common/options_value.h"
#include "common/version.h"

#define FILE_BYTES_MAX (1 << 20)
extern char **environ;

/* What somebody wrote for an option, and where. */
struct setting {
    char *text, *origin;
    bool is_path; /* of a secret's file */
    enum options_place place;
};
enum { KAFKA, POSTGRES, SECTIONS };
static const char *const section_names[SECTIONS] = {"kafka", "postgres"};

struct layer {
    struct setting settings[OPTIONS_MAX];
    struct option_pairs pairs[SECTIONS];
};
enum serve {
    SERVE_NOTHING,
    SERVE_HELP,
    SERVE_VERSION,
    SERVE_PRINT,
    SERVE_SAMPLE,
    SERVE_MDOC
}; /* as options_serve_flags */

struct loader {
    const struct option_set *set;
    struct layer low, flags; /* file and environment; flags */
    char *config;
    enum serve serve;
    const char **rest;
    size_t rest_max, rest_count;
};

/* ---- collecting ----------------------------------------------------------------------------------------------- */

static int no_memory(struct err *err)
{
    return err_set(err, ERR_TEMPORARY, "no memory for the options");
}

/* Replace *into by a copy of text. */
static int keep(char **into, const char *text, struct err *err)
{
    char *copy = strdup(text);
    if (!copy)
        return no_memory(err);
    free(*into);
    *into = copy;
    return 0;
}

/* One more line. */
static int keep_line(char **into, const char *text, struct err *err)
{
    size_t bytes = strlen(*into) + strlen(text) + 2;
    char *both = malloc(bytes);
    if (!both)
        return no_memory(err);
    snprintf(both, bytes, "%s\n%s", *into, text);
    free(*into);
    *into = both;
    return 0;
}

static int put_setting(struct loader *l, struct layer *layer, const struct option *o, const char *text,
                       const char *origin, enum options_place place, bool is_path, struct err *err)
{
    struct setting *s = &layer->settings[o - l->set->options];
    bool further = o->type == OPTION_LIST && s->text && s->place == place;
    s->is_path = is_path;
    s->place = place;
    if (further)
        return keep_line(&s->text, text, err);
    return keep(&s->text, text, err) < 0 ? -1 : keep(&s->origin, origin, err);
}

static struct option_pair *find_pair(struct option_pairs *pairs, const char *name)
{
    for (size_t i = 0; i < pairs->count; i++)
        if (strcmp(pairs->items[i].name, name) == 0)
            return &pairs->items[i];
    return NULL;
}

static int put_pair(struct option_pairs *pairs, const char *name, const char *value, const char *origin,
                    struct err *err)
{
    struct option_pair *p = find_pair(pairs, name);

    if (*name == '\0')
        return err_set(err, ERR_PERMANENT, "%s: a setting without a name", origin);
    if (strlen(value) > OPTIONS_TEXT_BYTES_MAX)
        return err_set(err, ERR_PERMANENT, "%s: longer than %d bytes", origin, OPTIONS_TEXT_BYTES_MAX);
    if (!p) {
        if (pairs->count == OPTION_PAIRS_MAX)
            return err_set(err, ERR_PERMANENT, "%s: more than %d settings", origin, OPTION_PAIRS_MAX);
        p = &pairs->items[pairs->count++];
    }
    if (keep(&p->name, name, err) < 0 || keep(&p->value, value, err) < 0)
        return -1;
    return keep(&p->origin, origin, err);
}

static void free_pairs(struct option_pairs *pairs)
{
    for (size_t i = 0; pairs && i < pairs->count; i++) {
        struct option_pair *p = &pairs->items[i];
        if (p->value)
            explicit_bzero(p->value, strlen(p->value));
        free(p->name);
        free(p->value);
        free(p->origin);
    }
    if (pairs)
        pairs->count = 0;
}

static bool takes_section(const struct option_set *set, int section)
{
    return section == KAFKA ? set->kafka : set->postgres;
}

/* ---- flags ---------------------------------------------------------------------------------------------------- */

static int take_word(struct loader *l, const char *word, struct err *err)
{
    if (!l->rest)
        return err_set(err, ERR_PERMANENT, "unexpected word \"%.64s\": options begin with --", word);
    if (l->rest_count == l->rest_max)
        return err_set(err, ERR_PERMANENT, "too many words at \"%.64s\": at most %zu", word, l->rest_max);
    l->rest[l->rest_count++] = word;
    return 0;
}

/* --kafka NAME=VALUE */
static int take_pair_flag(struct loader *l, int section, const char *flag, const char *value, struct err *err)
{
    char name[128];
    const char *equals = strchr(value, '=');
    size_t len = strcspn(value, "=: \t");
    if (!equals || (size_t)(equals - value) >= sizeof(name) || value + len != equals)
        return err_set(err, ERR_PERMANENT, "%s: \"%.*s\" is not NAME=VALUE", flag,
                       (int)options_name_len(value), value);
    snprintf(name, sizeof(name), "%.*s", (int)(equals - value), value);
    return put_pair(&l->flags.pairs[section], name, equals + 1, flag, err);
}

/* A program without words of its own can only mean the next one as the flag's value, right or wrong. */
static bool is_meant_as_bool(const struct loader *l, const char *next)
{
    return next && (options_value_is_bool(next) || (!l->rest && *next != '-'));
}

/* value: what stands behind '=', or NULL. *used_next is set when `next` (may be NULL) is the value. */
static int take_flag(struct loader *l, const char *flag, const char *value, const char *next, bool *used_next,
                     struct err *err)
{
    for (size_t i = 1; i < OPTIONS_SERVE_FLAGS; i++) {
        if (strcmp(flag + 2, options_serve_flags[i]) != 0)
            continue;
        if (value)
            return err_set(err, ERR_PERMANENT, "%s: takes no value", flag);
        l->serve = (enum serve)i;
        return 0;
    }

    char name[OPTIONS_NAME_BYTES];
    snprintf(name, sizeof(name), "%.*s", OPTIONS_NAME_BYTES - 1, flag + 2);
    for (char *c = name; *c; c++)
        *c = *c == '-' ? '_' : *c == '_' ? '-' : *c; /* so that --a_b is not taken for a-b's flag */
    int section = -1;
    for (int i = 0; i < SECTIONS; i++)
        if (takes_section(l->set, i) && strcmp(name, section_names[i]) == 0)
            section = i;
    bool is_config = strcmp(name, "config") == 0;
    bool is_path = false;
    const struct option *o = options_find(l->set, name, &is_path);
    if (section < 0 && !is_config && !o)
        return options_unknown(l->set, ON_COMMAND_LINE, NULL, flag, err);
    if (o && o->type == OPTION_SECRET && !is_path)
        return err_set(err, ERR_PERMANENT,
                       "%s: a secret is not given on the command line: write %s-file PATH", flag, flag);

    if (!value && o && o->type == OPTION_BOOL && !is_meant_as_bool(l, next))
        value = "true";
    if (!value) {
        if (!next)
            return err_set(err, ERR_PERMANENT, "%s: needs a value", flag);
        value = next;
        *used_next = true;
    }
    if (is_config)
        return keep(&l->config, value, err);
    if (section >= 0)
        return take_pair_flag(l, section, flag, value, err);
    return put_setting(l, &l->flags, o, value, flag, ON_COMMAND_LINE, is_path, err);
}

static int read_flags(struct loader *l, int argc, char **argv, struct err *err)
{
    bool words_only = false;

    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i];
        if (words_only || arg[0] != '-' || arg[1] == '\0') {
            if (take_word(l, arg, err) < 0)
                return -1;
            continue;
        }
        if (strcmp(arg, "--") == 0) {
            words_only = true;
            continue;
        }
        if (strcmp(arg, "-h") == 0)
            arg = "--help";
        if (strcmp(arg, "-V") == 0)
            arg = "--version";
        if (arg[1] != '-')
            return options_unknown(l->set, ON_COMMAND_LINE, NULL, arg, err);
        char flag[OPTIONS_NAME_BYTES + 48];
        size_t len = strcspn(arg, "=");
        snprintf(flag, sizeof(flag), "%.*s", (int)(len < sizeof(flag) ? len : sizeof(flag) - 1), arg);
        bool used_next = false;
        if (take_flag(l, flag, arg[len] ? arg + len + 1 : NULL, i + 1 < argc ? argv[i + 1] : NULL, &used_next,
                      err) < 0)
            return -1;
        i += used_next;
    }
    return 0;
}

/* ---- file ----------------------------------------------------------------------------------------------------- */

static int take_file_option(struct loader *l, const char *name, const char *value, const char *where,
                            struct err *err)
{
    bool is_path = false;
    const struct option *o = options_find(l->set, name, &is_path);
    if (!o)
        return options_unknown(l->set, IN_FILE, where, name, err);
    if (o->type == OPTION_SECRET && !is_path)
        return err_set(err, ERR_PERMANENT, "%s: %s is a secret: write its file's path as %s_file", where,
                       name, name);
    const struct setting *before = &l->low.settings[o - l->set->options];
    if (before->text && o->type != OPTION_LIST)
        return err_set(err, ERR_PERMANENT, "%s: \"%s\" a second time, first at %s", where, name,
                       before->origin);

    char origin[512];
    snprintf(origin, sizeof(origin), "%s: %s", where, name);
    return put_setting(l, &l->low, o, value, origin, IN_FILE, is_path, err);
}

static int take_file_line(struct loader *l, const char *section, const char *name, const char *value,
                          const char *where, struct err *err)
{
    if (*section == '\0')
        return take_file_option(l, name, value, where, err);
    for (int i = 0; i < SECTIONS; i++) {
        struct option_pairs *pairs = &l->low.pairs[i];
        if (!takes_section(l->set, i) || strcmp(section, section_names[i]) != 0)
            continue;
        const struct option_pair *before = find_pair(pairs, name);
        if (before)
            return err_set(err, ERR_PERMANENT, "%s: \"%.64s\" a second time, first at %s", where, name,
                           before->origin);
        return put_pair(pairs, name, value, where, err);
    }
    return err_set(err, ERR_PERMANENT,
                   "%s: %s has no section [%.64s]: its own options stand above any section%s%s", where,
                   l->set->program, section, l->set->kafka ? ", [kafka] holds those of librdkafka" : "",
                   l->set->postgres ? ", [postgres] those of libpq" : "");
}

static int take_file_text(struct loader *l, const char *path, char *text, struct err *err)
{
    struct options_file file;
    char where[400], *name, *value;
    int more;

    options_file_begin(&file, text);
    while ((more = options_file_next(&file, &name, &value, err)) > 0) {
        snprintf(where, sizeof(where), "%.380s:%d", path, file.line);
        if (take_file_line(l, file.section, name, value, where, err) < 0)
            return -1;
    }
    if (more < 0)
        err_prefix(err, "%.380s:%d: ", path, file.line);
    return more;
}

static int read_file(struct loader *l, struct err *err)
{
    const char *path = l->config ? l->config : getenv("TANDEM_CONFIG");
    if (!path || *path == '\0')
        return 0;

    struct buf text;
    buf_init(&text, FILE_BYTES_MAX);
    int rc = options_file_read(path, &text, err);
    if (rc == 0 && text.len)
        rc = take_file_text(l, path, text.data, err);
    buf_done(&text);
    return rc;
}

/* ---- environment ---------------------------------------------------------------------------------------------- */

/* TANDEM_KAFKA_SECURITY_PROTOCOL → security.protocol, TANDEM_POSTGRES_SSLMODE → sslmode. */
static int take_pair_variable(struct loader *l, int section, const char *variable, const char *suffix,
                              const char *value, struct err *err)
{
    char name[128];
    if (!takes_section(l->set, section))
        return 0; /* meant for another program of the same environment */
    if (strlen(suffix) >= sizeof(name))
        return err_set(err, ERR_PERMANENT, "%s: name too long", variable);
    snprintf(name, sizeof(name), "%s", suffix);
    for (char *c = name; *c; c++)
        *c = *c == '_' && section == KAFKA ? '.' : (char)tolower((unsigned char)*c);
    return put_pair(&l->low.pairs[section], name, value, variable, err);
}

/* A variable may be meant for another program: where it says who this one is, it does not silently win over the file. */
static int check_identity(const struct loader *l, const struct option *o, const char *variable,
                          const char *value, struct err *err)
{
    char flag[OPTIONS_NAME_BYTES];
    size_t i = (size_t)(o - l->set->options);
    const struct setting *file = &l->low.settings[i];

    if (!l->set->identity || strcmp(o->name, l->set->identity) != 0)
        return 0;
    if (!file->text || strcmp(file->text, value) == 0 || l->flags.settings[i].text)
        return 0;
    return err_set(
        err, ERR_PERMANENT,
        "%s is \"%.100s\", but %.400s is \"%.100s\": unset the variable, or say with %s which one counts",
        variable, value, file->origin, file->text, options_spell(ON_COMMAND_LINE, o->name, flag));
}

static int take_variable(struct loader *l, const char *variable, const char *value, struct err *err)
{
    char name[OPTIONS_NAME_BYTES], nearest[OPTIONS_NAME_BYTES];
    const char *suffix = variable + strlen("TANDEM_");
    if (*value == '\0' || strcmp(suffix, "CONFIG") == 0)
        return 0;

    snprintf(name, sizeof(name), "%.*s", OPTIONS_NAME_BYTES - 1, suffix);
    for (char *c = name; *c; c++)
        *c = (char)tolower((unsigned char)*c);
    bool is_path = false;
    const struct option *o = options_find(l->set, name, &is_path);
    if (o) {
        const struct setting *before = &l->low.settings[o - l->set->options];
        if (before->text && before->place == IN_ENVIRONMENT)
            return err_set(err, ERR_PERMANENT, "%s: %s is set as well: keep one of them", variable,
                           before->origin);
        if (check_identity(l, o, variable, value, err) < 0)
            return -1;
        return put_setting(l, &l->low, o, value, variable, IN_ENVIRONMENT, is_path, err);
    }
    if (strncmp(suffix, "KAFKA_", 6) == 0)
        return take_pair_variable(l, KAFKA, variable, suffix + 6, value, err);
    if (strncmp(suffix, "POSTGRES_", 9) == 0)
        return take_pair_variable(l, POSTGRES, variable, suffix + 9, value, err);
    if (*options_nearest(l->set, IN_ENVIRONMENT, variable, nearest))
        LOG_WARNING("unknown variable, ignored", LOG_STR("variable", variable), LOG_STR("nearest", nearest));
    else
        LOG_WARNING("unknown variable, ignored", LOG_STR("variable", variable));
    return 0;
}

static int read_environment(struct loader *l, struct err *err)
{
    for (char **entry = environ; entry && *entry; entry++) {
        char variable[256];
        const char *equals = strchr(*entry, '=');
        if (strncmp(*entry, "TANDEM_", 7) != 0 || !equals || (size_t)(equals - *entry) >= sizeof(variable))
            continue;
        snprintf(variable, sizeof(variable), "%.*s", (int)(equals - *entry), *entry);
        if (take_variable(l, variable, equals + 1, err) < 0)
            return -1;
    }
    return 0;
}

/* ---- putting it together -------------------------------------------------------------------------------------- */

int options_secret_read(const char *path, struct buf *into, struct err *err)
{
    if (options_file_read(path, into, err) < 0)
        return -1;
    if (into->len && into->data[into->len - 1] == '\n')
        into->data[--into->len] = '\0';
    if (into->len && into->data[into->len - 1] == '\r')
        into->data[--into->len] = '\0';
    return into->len ? 0 : err_set(err, ERR_PERMANENT, "\"%s\" is empty", path);
}

static int set_secret_file(const struct option *o, const char *path, void *into, struct err *err)
{
    struct buf text;
    buf_init(&text, OPTIONS_TEXT_BYTES_MAX);
    int rc = options_secret_read(path, &text, err);
    if (rc == 0)
        rc = options_value_set(o, text.data, into, err);
    if (rc == 0)
        rc = keep((char **)(void *)((char *)into + o->path_offset), path, err);
    if (text.data)
        explicit_bzero(text.data, text.cap);
    buf_done(&text);
    return rc;
}

static int apply_default(const struct option *o, void *into, struct err *err)
{
    char flag[OPTIONS_NAME_BYTES], variable[OPTIONS_NAME_BYTES], name[OPTIONS_NAME_BYTES - 8];

    if (o->dflt && o->type == OPTION_SECRET)
        return 0;
    if (o->dflt) {
        struct err bug = {0};
        int rc = options_value_set(o, o->dflt, into, &bug);
        ENSURE(rc == 0 || bug.kind == ERR_TEMPORARY); /* a default obeys its own limits */
        return rc < 0 ? no_memory(err) : 0;
    }
    snprintf(name, sizeof(name), "%s%s", o->name, o->type == OPTION_SECRET ? "_file" : "");
    return err_set(err, ERR_PERMANENT, "%s is required: give %s, %s or `%s` in the file", o->name,
                   options_spell(ON_COMMAND_LINE, name, flag), options_spell(IN_ENVIRONMENT, name, variable),
                   name);
}

static const struct setting *setting_of(const struct loader *l, size_t i)
{
    return l->flags.settings[i].text ? &l->flags.settings[i] : &l->low.settings[i];
}

static int apply_option(struct loader *l, size_t i, void *into, struct err *err)
{
    const struct option *o = &l->set->options[i];
    const struct setting *s = setting_of(l, i);

    if (!o->name)
        return 0;
    if (!s->text)
        return apply_default(o, into, err);
    char *text = s->is_path || o->type != OPTION_SECRET ? options_trim(s->text) : s->text;
    int rc = s->is_path ? set_secret_file(o, text, into, err) : options_value_set(o, text, into, err);
    if (rc < 0)
        err_prefix(err, "%s: ", s->origin);
    return rc;
}

/* Hand the pairs on, flags over the others. */
static int apply_pairs(struct loader *l, int section, struct option_pairs *into, struct err *err)
{
    if (!takes_section(l->set, section))
        return 0;
    ENSURE(into);
    *into = l->low.pairs[section];
    l->low.pairs[section].count = 0;
    for (size_t i = 0; i < l->flags.pairs[section].count; i++) {
        const struct option_pair *p = &l->flags.pairs[section].items[i];
        if (put_pair(into, p->name, p->value, p->origin, err) < 0)
            return -1;
    }
    return 0;
}

static int apply(struct loader *l, void *into, struct option_pairs *kafka, struct option_pairs *postgres,
                 struct err *err)
{
    for (size_t i = 0; i < l->set->option_count; i++)
        if (apply_option(l, i, into, err) < 0)
            return -1;
    return apply_pairs(l, KAFKA, kafka, err) < 0 ? -1 : apply_pairs(l, POSTGRES, postgres, err);
}

/* "topic: …" of a check becomes "inventory.ini:3: topic: …" or "TANDEM_TOPIC: …", as what is wrong with a single value is told. */
static void name_origin(const struct loader *l, struct err *err)
{
    const struct err said = *err;

    for (size_t i = 0; i < l->set->option_count; i++) {
        const char *name = l->set->options[i].name;
        size_t len = name ? strlen(name) : 0;
        if (!name || !setting_of(l, i)->origin || strncmp(said.message, name, len) != 0 ||
            strncmp(said.message + len, ": ", 2) != 0)
            continue;
        err_clear(err);
        err_set(err, said.kind, "%s%s", setting_of(l, i)->origin, said.message + len);
        return;
    }
}

static int check_together(const struct loader *l, const void *values, struct err *err)
{
    if (!l->set->check || l->set->check(values, err) == 0)
        return 0;
    name_origin(l, err);
    return -1;
}

static void serve(const struct loader *l, const void *values, const struct option_pairs *kafka,
                  const struct option_pairs *postgres)
{
    struct buf out;
    buf_init(&out, 16 << 20);
    switch (l->serve) {
    case SERVE_NOTHING:
        break;
    case SERVE_HELP:
        options_help(l->set, &out);
        break;
    case SERVE_VERSION:
        buf_printf(&out, "%s %s\n", l->set->program, TANDEM_VERSION);
        break;
    case SERVE_PRINT:
        options_print(l->set, values, kafka, postgres, &out);
        break;
    case SERVE_SAMPLE:
        options_sample(l->set, &out);
        break;
    case SERVE_MDOC:
        options_mdoc(l->set, &out);
        break;
    }
    fwrite(buf_str(&out), 1, out.len, stdout);
    fflush(stdout);
    buf_done(&out);
}

static void free_layer(struct layer *layer)
{
    for (size_t i = 0; i < OPTIONS_MAX; i++) {
        free(layer->settings[i].text);
        free(layer->settings[i].origin);
    }
    free_pairs(&layer->pairs[KAFKA]);
    free_pairs(&layer->pairs[POSTGRES]);
}

int options_load(const struct option_set *set, int argc, char **argv, void *into, struct option_pairs *kafka,
                 struct option_pairs *postgres, const char **rest, size_t rest_max, size_t *rest_count,
                 enum options_result *ret_result, struct err *err)
{
    ENSURE(set->option_count <= OPTIONS_MAX);
    struct loader *l = calloc(1, sizeof(*l));
    if (!l)
        return no_memory(err);
    l->set = set;
    l->rest = rest;
    l->rest_max = rest_max;

    int rc = read_flags(l, argc, argv, err);
    bool needs_values = l->serve == SERVE_NOTHING || l->serve == SERVE_PRINT;
    if (rc == 0 && needs_values) {
        rc = read_file(l, err);
        if (rc == 0)
            rc = read_environment(l, err);
        if (rc == 0)
            rc = apply(l, into, kafka, postgres, err);
        if (rc == 0)
            rc = check_together(l, into, err);
        if (rc < 0)
            options_done(set, into, kafka, postgres);
    }
    if (rc == 0) {
        serve(l, into, kafka, postgres);
        if (rest_count)
            *rest_count = l->rest_count;
        *ret_result = l->serve == SERVE_NOTHING ? OPTIONS_RUN : OPTIONS_EXIT;
    }
    free_layer(&l->low);
    free_layer(&l->flags);
    free(l->config);
    free(l);
    return rc;
}

void options_done(const struct option_set *set, void *into, struct option_pairs *kafka,
                  struct option_pairs *postgres)
{
    for (size_t i = 0; i < set->option_count; i++)
        if (set->options[i].name)
            options_value_free(&set->options[i], into);
    free_pairs(kafka);
    free_pairs(postgres);
}
