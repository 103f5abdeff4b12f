/* Fuzzes the reader of templates, routes and headers, and what they make of an event: line, key and payload, apart by NULs. */
#include <string.h>

#include "worker/targets/http_target.h"

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

/* What is in the path came through the percent-encoding, and no header has a line end. */
static void check(const struct request *req)
{
    const char *path = buf_str(&req->path);
    ENSURE(path[0] == '/' && strlen(path) == req->path.len);
    for (size_t i = 0; i < req->path.len; i++)
        ENSURE(path[i] > 0x20 && path[i] < 0x7F && path[i] != '#');
    const char *query = strchr(path, '?'),
               *others[] = {strstr(path, "/../"), strstr(path, "/./"), strstr(path, "//")};
    for (size_t i = 0; i < ARRAY_LEN(others); i++)
        ENSURE(!others[i] || (query && query < others[i]));
    for (size_t i = 0; i < req->headers.len; i++)
        ENSURE(req->headers.data[i] == '\0' || (req->headers.data[i] >= 0x20 && req->headers.data[i] < 0x7F));
}

static void map(const struct http_routes *routes, const unsigned char *data, size_t size)
{
    static struct event ev;
    struct request req;
    enum reason reason;
    struct err err = {0};
    struct slice key = part(&data, &size);

    event_begin(&ev, key, (struct slice){(const char *)data, size});
    ev.id = SLICE_LIT("e1");
    ev.type = SLICE_LIT("order.placed");
    request_init(&req, 65536);
    if (http_routes_map(routes, &ev, &req, &reason, &err) == TARGET_SEND)
        check(&req);
    request_done(&req);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    char plain[] = "* POST /v1/{key}";
    struct err err = {0};
    struct slice line = part(&data, &size);
    char *text = strndup(line.data ? line.data : "", line.len);
    char *route[] = {*text == '*' ? text : plain};
    char *header[] = {text};
    const struct option_list routes = {route, 1}, headers = {header, *text == '*' ? 0 : 1};
    struct http_routes *r = http_routes_new(&routes, &headers, &err);
    ENSURE(r || (err.kind == ERR_PERMANENT && err.message[0]));
    if (r)
        map(r, data, size);
    http_routes_free(r);
    free(text);
    return 0;
}
