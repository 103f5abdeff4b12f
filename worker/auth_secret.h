/* One secret: from a file that is read again when it changes, or from the environment. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "common/compiler.h"

struct auth_secret {
    const char *name; /* of its option, for messages; borrowed */
    const char *path; /* borrowed; NULL: not from a file, never changes */
    char *text;       /* the value in force; NULL: not given */
    struct stat seen; /* of the file when it was read last; zero: never */
};

/* text is copied (NULL: not given), name and path are borrowed for the life of s. */
void auth_secret_init(struct auth_secret *s, const char *name, const char *text, const char *path);
void auth_secret_done(struct auth_secret *s); /* wipes the text */
/*
 * Look whether the file has changed: the new text, for the caller to free with auth_secret_wipe or to take over as s->text; NULL: there
 * is none. A file that cannot be read just now is warned of once for each change. Costs one stat(2).
 */
NODISCARD char *auth_secret_look(struct auth_secret *s);
/* Wipe and free a text; NULL-safe. */
void auth_secret_wipe(char *text);
