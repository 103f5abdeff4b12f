/* The request that a target fills: header and path pieces go in only when they cannot mean something else. */
#include "worker/targets/target.h"

#include <string.h>

void request_init(struct request *req, size_t payload_max)
{
    *req = (struct request){.method = NULL};
    buf_init(&req->path, REQUEST_PATH_BYTES_MAX);
    buf_init(&req->own_body, payload_max);
    buf_init(&req->headers, REQUEST_HEADER_BYTES_MAX);
}

void request_done(struct request *req)
{
    if (!req)
        return;
    buf_done(&req->path);
    buf_done(&req->own_body);
    buf_done(&req->headers);
}

static bool is_printable_ascii(struct slice s)
{
    for (size_t i = 0; i < s.len; i++)
        if (s.data[i] < 0x20 || s.data[i] > 0x7E)
            return false;
    return true;
}

int request_header(struct request *req, const char *name, struct slice value, struct err *err)
{
    if (!is_printable_ascii(value))
        return err_set(err, ERR_PERMANENT, "value of header \"%s\" has characters that no header can carry",
                       name);
    if (buf_puts(&req->headers, name) < 0 || buf_puts(&req->headers, ": ") < 0 ||
        buf_append(&req->headers, value.data, value.len) < 0 || buf_append(&req->headers, "", 1) < 0)
        return err_set(err, ERR_PERMANENT, "headers of the request are larger than %d bytes",
                       REQUEST_HEADER_BYTES_MAX);
    return 0;
}

int request_segment(struct request *req, const char *what, struct slice segment, struct err *err)
{
    if (segment.len == 0)
        return err_set(err, ERR_PERMANENT, "%s is %s: there is no resource to name", what,
                       segment.data ? "empty" : "missing");
    if (slice_is(segment, ".") || slice_is(segment, ".."))
        return err_set(err, ERR_PERMANENT, "%s \"%.*s\" would name another resource", what, (int)segment.len,
                       segment.data);
    if (buf_puts(&req->path, "/") < 0 || buf_percent(&req->path, segment.data, segment.len) < 0)
        return err_set(err, ERR_PERMANENT, "path of the request is longer than %d bytes",
                       REQUEST_PATH_BYTES_MAX);
    return 0;
}
