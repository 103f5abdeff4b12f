/* Bytes from elsewhere on a terminal: text as it is, everything that could steer the terminal escaped. */
#pragma once

#include <stddef.h>
#include <stdio.h>

/* Printable UTF-8 as it is, everything else as \xNN; characters of `allowed` ("\n\t") stay. */
void show_text(FILE *out, const char *s, size_t len, const char *allowed);
/* Offset, bytes in hex, text: at most max_bytes of it; says how many it left out. */
void show_hex(FILE *out, const char *s, size_t len, size_t max_bytes);
