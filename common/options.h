/*
 * A program's options from one table: file (INI), then TANDEM_* variables over it, then flags over both.
 * Out of the same table come --help, --print-config, --sample-config and the manual's table.
 *
 * A program writes NAME_options.def: OPTION lines, under OPTION_GROUP titles,
 *
 *     OPTION_GROUP("Delivery")
 *     OPTION(max_attempts, INT, "8", 1, 100, "COUNT", "Attempts that count before the event is dead-lettered.")
 *     OPTION(request_timeout, DURATION, "10s", 1 * NS_PER_MS, 600 * NS_PER_S, "TIME", "For one request.")
 *     OPTION(on_dead_letter, ENUM, "park", 0, 0, "park|continue", "What happens to later events of its key.")
 *     OPTION(api_key, SECRET, "", 0, 0, "TEXT", "Sent as X-API-Key.")
 *
 * and makes of it the struct with one member per option, and the table:
 *
 *     struct worker_options {
 *     #define OPTION(name, type, ...) OPTION_MEMBER_##type(name)
 *     #define OPTION_GROUP(title)
 *     #include "worker/worker_options.def"
 *     #undef OPTION
 *     #undef OPTION_GROUP
 *         struct option_pairs kafka;
 *     };
 *     static const struct option worker_option_table[] = {
 *     #define OPTION(...) OPTION_ROW(struct worker_options, __VA_ARGS__),
 *     #define OPTION_GROUP(title) OPTION_GROUP_ROW(title),
 *     #include "worker/worker_options.def"
 *     #undef OPTION
 *     #undef OPTION_GROUP
 *     };
 *
 * TYPE, and the member it fills:
 *   STRING   char *          never NULL; min and max bound its length in bytes, max 0 means OPTIONS_TEXT_BYTES_MAX
 *   SECRET   char *          NULL when not set; never a flag's value and never printed. Given as a path (file `name_file`,
 *                            flag --name-file, variable TANDEM_NAME_FILE) or in the variable TANDEM_NAME; one trailing
 *                            newline is dropped
 *   INT      int64_t         BOOL    bool (true/false/yes/no/on/off/1/0; the flag alone means true)
 *   DURATION int64_t ns      "250ms" "10s" "5m" "1h" "7d"; a bare number is refused
 *   BYTES    int64_t bytes   "512" "64KiB" "10MiB" "1GiB"
 *   RATIO    double 0..1     "0.5" or "50%"; min and max unused
 *   LIST     struct option_list   texts; in the file and as a flag the name comes once for each, in a variable each is a line;
 *                            max bounds their number. The flags replace those of file and variable
 *   ENUM     int             min and max unused, UNIT is "word|word|word", the value is the word's index
 * min and max are in the member's own unit (DURATION: ns, BYTES: bytes). A default of NULL makes the option required.
 * Flag: --name VALUE or --name=VALUE with '-' for '_'; variable: TANDEM_NAME (empty counts as not set);
 * file: `name = value`.
 * Pass-through: sections [kafka] (librdkafka's own names) and [postgres] (libpq's own names); flags --kafka NAME=VALUE,
 * --postgres NAME=VALUE; variables TANDEM_KAFKA_SECURITY_PROTOCOL (dots as '_'), TANDEM_POSTGRES_SSLMODE.
 * Space around a value does not belong to it. Unknown names are errors; only of variables, which several programs may
 * share, an unknown one is a warning in the log.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/compiler.h"
#include "common/err.h"

enum option_type {
    OPTION_STRING,
    OPTION_SECRET,
    OPTION_INT,
    OPTION_BOOL,
    OPTION_DURATION,
    OPTION_BYTES,
    OPTION_RATIO,
    OPTION_ENUM,
    OPTION_LIST
};

struct option_list {
    char **items;
    size_t count;
};

struct option {
    const char *name;
    enum option_type type;
    const char *dflt; /* as a user would write it; NULL: required */
    int64_t min, max;
    const char *unit;
    const char *prose;  /* one or two sentences for help and manual */
    size_t offset;      /* of the member in the program's option struct */
    size_t path_offset; /* SECRET: of its second member */
};

#define OPTION_MEMBER_STRING(name_) char *name_;
#define OPTION_MEMBER_SECRET(name_) char *name_, *name_##_path;
#define OPTION_MEMBER_INT(name_) int64_t name_;
#define OPTION_MEMBER_BOOL(name_) bool name_;
#define OPTION_MEMBER_DURATION(name_) int64_t name_;
#define OPTION_MEMBER_BYTES(name_) int64_t name_;
#define OPTION_MEMBER_RATIO(name_) double name_;
#define OPTION_MEMBER_ENUM(name_) int name_;
#define OPTION_MEMBER_LIST(name_) struct option_list name_;

#define OPTION_PATH_STRING(struct_, name_) 0
#define OPTION_PATH_SECRET(struct_, name_) offsetof(struct_, name_##_path)
#define OPTION_PATH_INT(struct_, name_) 0
#define OPTION_PATH_BOOL(struct_, name_) 0
#define OPTION_PATH_DURATION(struct_, name_) 0
#define OPTION_PATH_BYTES(struct_, name_) 0
#define OPTION_PATH_RATIO(struct_, name_) 0
#define OPTION_PATH_ENUM(struct_, name_) 0
#define OPTION_PATH_LIST(struct_, name_) 0

#define OPTION_ROW(struct_, name_, type_, dflt_, min_, max_, unit_, prose_)                                  \
    {                                                                                                        \
        .name = #name_, .type = OPTION_##type_, .dflt = (dflt_), .min = (min_), .max = (max_),               \
        .unit = (unit_), .prose = (prose_), .offset = offsetof(struct_, name_),                              \
        .path_offset = OPTION_PATH_##type_(struct_, name_)                                                   \
    }
/* A title over the rows that follow it; it has no name. */
#define OPTION_GROUP_ROW(title_)                                                                             \
    {                                                                                                        \
        .name = NULL, .prose = (title_)                                                                      \
    }

#define OPTIONS_MAX 128              /* rows of one program's table */
#define OPTIONS_TEXT_BYTES_MAX 65536 /* of one value, and of a secret file */
#define OPTIONS_ITEM_BYTES_MAX 4096  /* of one text of a LIST */

/* name=value pairs handed on to a library under its own names; owned by the option struct. */
struct option_pair {
    char *name, *value;
    char *origin; /* "file:line", "TANDEM_KAFKA_…" or "--kafka": for the error when the library refuses it */
};
#define OPTION_PAIRS_MAX 64
struct option_pairs {
    struct option_pair items[OPTION_PAIRS_MAX];
    size_t count;
};

/* What a program is, for help texts and parsing. All pointers are borrowed for the life of the process. */
struct option_set {
    const char *program;   /* "tandem-relay" */
    const char *summary;   /* one sentence for --help */
    const char *usage;     /* "tandem-relay [options]" */
    const char *help_tail; /* examples and exit codes; may be NULL */
    const struct option *options;
    size_t option_count;
    bool kafka, postgres; /* which pass-through sections it takes */
    const char
        *identity; /* the option that says who it is: its variable must not contradict the file; or NULL */
    /* What no single option can know, also for --print-config; may be NULL. -1 PERMANENT, one line. */
    int (*check)(const void *values, struct err *err);
};

/* EXIT: --help, --version, --print-config, --sample-config or --mdoc was served on stdout. */
enum options_result { OPTIONS_RUN, OPTIONS_EXIT };

/*
 * Read file (--config FILE, TANDEM_CONFIG, or none), environment and flags into `into` (zeroed struct of the program).
 * Strings are allocated and owned by `into`; free with options_done. On -1 the error is PERMANENT and one line that names
 * the value and its source ("relay.ini:12", "TANDEM_MAX_ATTEMPTS", "--max-attempts") and, for an unknown name, the nearest
 * known one. rest/rest_count, when not NULL, receive the words that are not options (a verb and its arguments), borrowed from argv;
 * when NULL such a word is an error. Not thread-safe.
 */
NODISCARD int options_load(const struct option_set *set, int argc, char **argv, void *into,
                           struct option_pairs *kafka, struct option_pairs *postgres, const char **rest,
                           size_t rest_max, size_t *rest_count, enum options_result *ret_result,
                           struct err *err);
void options_done(const struct option_set *set, void *into, struct option_pairs *kafka,
                  struct option_pairs *postgres);

void options_help(const struct option_set *set, struct buf *out);
/* The values in force, as a file that could be read back; secrets as "(set)" or "(not set)" in a comment. */
void options_print(const struct option_set *set, const void *values, const struct option_pairs *kafka,
                   const struct option_pairs *postgres, struct buf *out);
void options_sample(const struct option_set *set,
                    struct buf *out); /* a commented sample file with the defaults */
void options_mdoc(const struct option_set *set, struct buf *out); /* the OPTIONS section of the manual page */

/* What a secret's file holds, less one trailing newline. -1 PERMANENT: it cannot be read, or is empty. */
NODISCARD int options_secret_read(const char *path, struct buf *into, struct err *err);

/* The parsers of single values, also used by tandem-dlq's verbs and the fuzzers. 0 or -1 PERMANENT. */
NODISCARD int options_parse_duration(const char *text, int64_t *ret_ns, struct err *err);
NODISCARD int options_parse_bytes(const char *text, int64_t *ret_bytes, struct err *err);
