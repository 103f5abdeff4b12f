/* What a person reads on a terminal: text from elsewhere as it is, everything that could steer the terminal escaped; words of a number. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Printable UTF-8 as it is, everything else as \xNN; characters of `allowed` ("\n\t") stay. Returns how many characters it wrote. */
size_t show_text(FILE *out, const char *s, size_t len, const char *allowed);
/* Offset, bytes in hex, text: at most max_bytes of it; says how many it left out. */
void show_hex(FILE *out, const char *s, size_t len, size_t max_bytes);

/* The end of a noun and the verb of that many: "1 row was", "2 rows were". */
static inline const char *show_plural(int64_t count)
{
    return count == 1 ? "" : "s";
}
static inline const char *show_were(int64_t count)
{
    return count == 1 ? "was" : "were";
}
