/*
 * A program's options from one table: file (INI), then TANDEM_* variables over it, then flags over both.
 * Out of the same table come --help, --print-config, --sample-config and the manual's table.
 *
 * A program writes a NAME_options.def of OPTION(...) lines and a struct whose members have the options' names:
 *   OPTION(name, TYPE, "default", min, max, "UNIT", "prose")
 * TYPE, and the member it fills:
 *   STRING   char *          SECRET  char * (given as `name_file` path or TANDEM_NAME; never printed)
 *   INT      int64_t         BOOL    bool (true/false/yes/no/on/off/1/0)
 *   DURATION int64_t ns      "250ms" "10s" "5m" "1h"; a bare number is refused
 *   BYTES    int64_t bytes   "512" "64KiB" "10MiB" "1GiB"
 *   RATIO    double 0..1     "0.5" or "50%"
 *   ENUM     int             min and max unused, UNIT is "word|word|word", the value is the word's index
 * min and max are in the member's own unit (DURATION: ns, BYTES: bytes).
 * Flag: --name VALUE or --name=VALUE with '-' for '_'; variable: TANDEM_NAME; file: `name = value` (no section).
 * Pass-through: [kafka] (librdkafka's own names), [postgres] (libpq's own names), [headers] when the program wants it;
 * flags --kafka NAME=VALUE, --postgres NAME=VALUE; variables TANDEM_KAFKA_SECURITY_PROTOCOL (dots as '_').
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
    OPTION_ENUM
};

struct option {
    const char *name;
    enum option_type type;
    const char *dflt; /* as a user would write it; NULL: required */
    int64_t min, max;
    const char *unit;
    const char *prose; /* one or two sentences for help and manual */
    size_t offset;     /* of the member in the program's option struct */
};

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
    const char *program; /* "tandem-relay" */
    const char *summary; /* one sentence for --help */
    const char *usage;   /* "tandem-relay [options]" */
    const char *help_tail; /* examples and exit codes; may be NULL */
    const struct option *options;
    size_t option_count;
    bool kafka, postgres; /* which pass-through sections it takes */
};

enum options_result { OPTIONS_RUN, OPTIONS_EXIT }; /* EXIT: --help, --version, --print-config, … was served on stdout */

/*
 * Read file (--config FILE, TANDEM_CONFIG, or none), environment and flags into `into` (zeroed struct of the program).
 * Strings are allocated and owned by `into`; free with options_done. On -1 the error is PERMANENT and one line that names
 * the value and its source ("relay.ini:12", "TANDEM_MAX_ATTEMPTS", "--max-attempts") and, for an unknown name, the nearest
 * known one. rest/rest_count, when not NULL, receive the words that are not options (a verb and its arguments), borrowed from argv;
 * when NULL such a word is an error. Not thread-safe.
 */
NODISCARD int options_load(const struct option_set *set, int argc, char **argv, void *into, struct option_pairs *kafka,
                           struct option_pairs *postgres, const char **rest, size_t rest_max, size_t *rest_count,
                           enum options_result *ret_result, struct err *err);
void options_done(const struct option_set *set, void *into, struct option_pairs *kafka, struct option_pairs *postgres);

void options_help(const struct option_set *set, struct buf *out);
/* The values in force, as a file that could be read back; secrets as "(set)" or "(not set)" in a comment. */
void options_print(const struct option_set *set, const void *values, const struct option_pairs *kafka,
                   const struct option_pairs *postgres, struct buf *out);
void options_sample(const struct option_set *set, struct buf *out); /* a commented sample file with the defaults */
void options_mdoc(const struct option_set *set, struct buf *out);   /* the OPTIONS section of the manual page */

/* The parsers of single values, also used by tandem-dlq's verbs and the fuzzers. 0 or -1 PERMANENT. */
NODISCARD int options_parse_duration(const char *text, int64_t *ret_ns, struct err *err);
NODISCARD int options_parse_bytes(const char *text, int64_t *ret_bytes, struct err *err);
