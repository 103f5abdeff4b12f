/* Fuzzes the reader of rules and what a rule makes of an answer: rule, then headers, then body, apart by NULs. */
#include <string.h>

#include "worker/targets/rules.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static struct slice part(const unsigned char **data, size_t *size)
{
    const unsigned char *end = *size ? memchr(*data, 0, *size) : NULL;
    size_t len = end ? (size_t)(end - *data) : *size;
    struct slice found = {(const char *)*data, len};
    len += end != NULL;
    *data += len;
    *size -= len;
    return found;
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    static const struct event ev = {.type = {"order.placed", 12}};
    const struct request req = {.method = "PUT", .if_match = true};
    struct rules *rules = rules_new();
    struct err err = {0};
    struct ruling ruling;
    struct slice line = part(&data, &size);
    char *text = strndup(line.data ? line.data : "", line.len);

    if (rules_add(rules, text, &err) == 0) {
        struct answer a = {
            .transport = TRANSPORT_OK, .status = 409, .repeated = true, .ev = &ev, .req = &req};
        a.headers = part(&data, &size);
        a.body = (struct slice){(const char *)data, size};
        if (rules_decide(rules, &a, &ruling))
            ENSURE(rules_concern(rules, a.transport, a.status));
    } else
        ENSURE(err.kind == ERR_PERMANENT && err.message[0]);
    free(text);
    rules_free(rules);
    return 0;
}
