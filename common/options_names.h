/* The names of options as they are written in each place, and the nearest one to a misspelt one. */
#pragma once

#include "common/options.h"

#define OPTIONS_NAME_BYTES 80
enum options_place { IN_FILE, IN_ENVIRONMENT, ON_COMMAND_LINE };

/* What is served on stdout instead of running: flags without "--"; the first is none. */
#define OPTIONS_SERVE_FLAGS 6
extern const char *const options_serve_flags[OPTIONS_SERVE_FLAGS];

/* The name as it is written in that place: max_attempts, TANDEM_MAX_ATTEMPTS, --max-attempts. Returns out. */
const char *options_spell(enum options_place place, const char *name, char out[OPTIONS_NAME_BYTES]);
/* The option of that plain name ("api_key", or "api_key_file" of a secret: *ret_is_path), or NULL. */
const struct option *options_find(const struct option_set *set, const char *name, bool *ret_is_path);
/* The known name that is spelt most alike; "" when none is near. Returns out. */
const char *options_nearest(const struct option_set *set, enum options_place place, const char *word,
                            char out[OPTIONS_NAME_BYTES]);
/* How much of text can be a name: what follows, as in "sasl.password: …", may be a secret, and no message quotes it. */
size_t options_name_len(const char *text);
/* The error for a name that nobody knows. Returns -1. */
int options_unknown(const struct option_set *set, enum options_place place, const char *origin,
                    const char *word, struct err *err);
