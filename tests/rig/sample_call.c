/* Reading what a request says: the order in its path or its body, and the version. */
#include "tests/rig/sample_api.h"

#include <jansson.h>
#include <string.h>

int sample_read_body(struct sample_call *call)
{
    json_error_t why;
    json_t *root = json_loadb(call->body ? call->body : "", call->body_len, 0, &why);
    const char *order = json_string_value(json_object_get(root, "order"));
    json_t *version = json_object_get(root, "version");
    int status = 400;

    if (order && *order && strlen(order) < SAMPLE_ID_BYTES && (!version || json_is_integer(version))) {
        memcpy(call->order, order, strlen(order) + 1);
        call->version = version ? json_integer_value(version) : 0;
        status = 0;
    }
    json_decref(root);
    return status;
}

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* One byte of a path segment, percent-decoded; 0 when it is not one. */
static char decode(const char **p)
{
    if (**p != '%')
        return *(*p)++;
    int high = hex((*p)[1]), low = high < 0 ? -1 : hex((*p)[2]);
    if (low < 0)
        return 0;
    *p += 3;
    return (char)(high * 16 + low);
}

int sample_segment(const char *path, const char *prefix, char out[SAMPLE_ID_BYTES], const char **ret_rest)
{
    size_t len = 0, prefix_len = strlen(prefix);

    if (strncmp(path, prefix, prefix_len) != 0)
        return 404;
    const char *p = path + prefix_len;
    while (*p && *p != '/') {
        char byte = decode(&p);
        if (!byte || len + 1 >= SAMPLE_ID_BYTES)
            return 404;
        out[len++] = byte;
    }
    out[len] = '\0';
    *ret_rest = p;
    return len ? 0 : 404;
}
