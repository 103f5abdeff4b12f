/* Fuzz: any bytes with a secret in them, written as the bytes choose; nothing of it is left, and the rest is as it was. */
#include <string.h>

#include "worker/auth_hidden.h"

static const char secret[] = "a/b+\"c\\d\xC3\xA9 e\xF0\x9F\x94\x91";

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

/* One character of ASCII in JSON, as this writer likes to. */
static void write_json(struct buf *out, char c, unsigned how)
{
    if (c == '"' || c == '\\' || how % 4 == 1)
        (void)buf_printf(out, how % 8 < 4 ? "\\u%04x" : "\\u%04X", (unsigned)c);
    else if (c == '/' && how % 4 == 2)
        (void)buf_puts(out, "\\/");
    else
        (void)buf_append(out, &c, 1);
}

static void write_secret(struct buf *out, const unsigned char *how, size_t size)
{
    for (size_t i = 0; i < sizeof secret - 1; i++) {
        if (secret[i] > 0)
            write_json(out, secret[i], size ? how[i % size] : 0);
        else
            (void)buf_append(out, &secret[i], 1);
    }
}

static void redact(struct auth_hidden *hidden, struct slice text, enum hidden_cut cut, struct buf *out)
{
    int rc = auth_hidden_redact(hidden, 1, text, cut, out);
    ENSURE(rc == 0);
}

/* Whatever stands around it. */
static void any_bytes(struct auth_hidden *hidden, struct slice text, enum hidden_cut cut, struct buf *out)
{
    redact(hidden, text, cut, out);
    ENSURE(!out->len || !memmem(out->data, out->len, secret, sizeof secret - 1));
    if (!memmem(buf_str(out), out->len, "[redacted]", 10))
        ENSURE(out->len == text.len && (!text.len || memcmp(out->data, text.data, text.len) == 0));
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    struct auth_hidden hidden = {0};
    struct buf out, written;
    enum hidden_cut cut = size ? (enum hidden_cut)(data[0] % 3) : HIDDEN_WHOLE;

    auth_hidden_add(&hidden, secret);
    buf_init(&out, 4 * size + 1000);
    buf_init(&written, 1000);
    any_bytes(&hidden, (struct slice){(const char *)data, size}, cut, &out);
    (void)buf_puts(&written, "{\"echo\":\"");
    write_secret(&written, data, size);
    (void)buf_puts(&written, "\"}");
    buf_reset(&out);
    redact(&hidden, (struct slice){written.data, written.len}, HIDDEN_WHOLE, &out);
    ENSURE(strcmp(buf_str(&out), "{\"echo\":\"[redacted]\"}") == 0);
    auth_hidden_done(&hidden);
    buf_done(&out);
    buf_done(&written);
    return 0;
}
