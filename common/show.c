/* Shows bytes to people: printable UTF-8 as it is, controls and stray bytes escaped, binary as a hex dump. */
#include "common/show.h"

#include <stdbool.h>
#include <string.h>

#include "common/utf8.h"

/* C0, DEL and C1 controls (C1 are the characters U+0080 to U+009F: c2 80 … c2 9f). */
static bool is_control(const char *s, size_t len)
{
    unsigned char c = (unsigned char)s[0];
    if (len == 1)
        return c < 0x20 || c == 0x7f;
    return len == 2 && c == 0xc2 && (unsigned char)s[1] < 0xa0;
}

size_t show_text(FILE *out, const char *s, size_t len, const char *allowed)
{
    size_t written = 0;
    for (size_t i = 0; i < len;) {
        size_t n = utf8_char(s + i, len - i);
        bool plain = n > 0 && (!is_control(s + i, n) || (s[i] && strchr(allowed, s[i])));
        if (plain) {
            fwrite(s + i, 1, n, out);
            i += n;
            written++;
        } else {
            fprintf(out, "\\x%02x", (unsigned char)s[i++]);
            written += 4;
        }
    }
    return written;
}

static void show_hex_line(FILE *out, const char *data, size_t len)
{
    for (size_t i = 0; i < 16; i++) {
        if (i < len)
            fprintf(out, " %02x", (unsigned char)data[i]);
        else
            fputs("   ", out);
    }
    fputs("  ", out);
    for (size_t i = 0; i < len; i++)
        fputc(data[i] >= 0x20 && data[i] < 0x7f ? data[i] : '.', out);
    fputc('\n', out);
}

void show_hex(FILE *out, const char *s, size_t len, size_t max_bytes)
{
    size_t shown = len < max_bytes ? len : max_bytes;
    for (size_t i = 0; i < shown; i += 16) {
        fprintf(out, "  %06zx ", i);
        show_hex_line(out, s + i, shown - i < 16 ? shown - i : 16);
    }
    if (shown < len)
        fprintf(out, "  … %zu more bytes (--json has all)\n", len - shown);
}
