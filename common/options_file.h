/*
 * Reads INI text line by line: `[section]`, `name = value`, and whole-line comments with '#' or ';'.
 *
 * Not libinih: as packaged it cuts a line at 199 bytes without an error and takes the rest for a further setting, drops what follows
 * " ;" from a value, and tells no line numbers.
 */
#pragma once

#include "common/buf.h"
#include "common/compiler.h"
#include "common/err.h"

struct options_file {
    char *next;          /* the text not read yet */
    const char *section; /* "" before the first one */
    int line;            /* of what was returned last, from 1 */
};

/* The whole of a small file as text, up to the limit that `into` was born with. -1 PERMANENT names the file. */
NODISCARD int options_file_read(const char *path, struct buf *into, struct err *err);
/* text: NUL-terminated, changed and borrowed as long as anything returned is used. */
void options_file_begin(struct options_file *f, char *text);
/*
 * 1 and the next setting (name and value without the space around them), 0 at the end, -1 PERMANENT for a line that is none of these; no more
 * of it is quoted than can be a name.
 */
NODISCARD int options_file_next(struct options_file *f, char **ret_name, char **ret_value, struct err *err);
/* Cut the space around s: returns the first other byte; changes s. */
char *options_trim(char *s);
