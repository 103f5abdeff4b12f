/* The request that a target fills: header and path pieces go in only when they cannot mean something else. */
#include "worker/targets/target.h"

#include <string.h>
#include <strings.h>

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
    if (req->header_count == REQUEST_HEADERS_MAX)
        return err_set(err, ERR_PERMANENT, "the request has more than %d headers of its own",
                       REQUEST_HEADERS_MAX);
    if (buf_puts(&req->headers, name) < 0 || buf_puts(&req->headers, ": ") < 0 ||
        buf_append(&req->headers, value.data, value.len) < 0 || buf_append(&req->headers, "", 1) < 0)
        return err_set(err, ERR_PERMANENT, "headers of the request are larger than %d bytes",
                       REQUEST_HEADER_BYTES_MAX);
    req->header_count++;
    return 0;
}

void request_header_drop(struct request *req, const char *name)
{
    size_t len = strlen(name), kept = 0;

    for (size_t at = 0, bytes; at < req->headers.len; at += bytes) {
        char *line = req->headers.data + at;
        bytes = strlen(line) + 1;
        if (strncasecmp(line, name, len) == 0 && line[len] == ':') {
            req->header_count--;
            continue;
        }
        memmove(req->headers.data + kept, line, bytes);
        kept += bytes;
    }
    if (kept < req->headers.len)
        req->headers.data[kept] = '\0';
    req->headers.len = kept;
    req->if_match &= strcasecmp(name, "If-Match") != 0;
    req->if_none_match &= strcasecmp(name, "If-None-Match") != 0;
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

#define ENDPOINT_SEGMENTS 2

/* FNV-1a, of 64 bits. */
static uint64_t hash_byte(uint64_t hash, char c)
{
    return (hash ^ (unsigned char)c) * UINT64_C(1099511628211);
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Is it this text, percent-encoded? */
static bool segment_is(struct slice segment, struct slice text)
{
    size_t n = 0;

    for (size_t i = 0; i < segment.len; i++, n++) {
        char c = segment.data[i];
        int high = c == '%' && segment.len - i > 2 ? hex_value(segment.data[i + 1]) : -1;
        int low = high >= 0 ? hex_value(segment.data[i + 2]) : -1;
        if (low >= 0) {
            c = (char)(high << 4 | low);
            i += 2;
        }
        if (n >= text.len || c != text.data[n])
            return false;
    }
    return n > 0 && n == text.len;
}

uint64_t request_endpoint(const char *method, const char *path, struct slice key)
{
    uint64_t hash = UINT64_C(14695981039346656037);

    if (!method)
        return 0;
    for (const char *c = method; *c; c++)
        hash = hash_byte(hash, *c);
    for (int n = 0; n < ENDPOINT_SEGMENTS && *path == '/'; n++) {
        size_t len = strcspn(path + 1, "/?");
        if (segment_is((struct slice){path + 1, len}, key))
            break;
        for (const char *end = path + 1 + len; path < end; path++)
            hash = hash_byte(hash, *path);
    }
    return hash;
}

bool request_expects_body(const char *method)
{
    return strcmp(method, "POST") == 0 || strcmp(method, "PUT") == 0 || strcmp(method, "PATCH") == 0;
}

/* RFC 9110 8.8.3: W/ before a weak one, quotes, and neither quotes nor space inside. */
static bool is_entity_tag(struct slice s, bool may_be_weak)
{
    if (may_be_weak && s.len > 2 && memcmp(s.data, "W/", 2) == 0)
        s = (struct slice){s.data + 2, s.len - 2};
    if (s.len < 2 || s.data[0] != '"' || s.data[s.len - 1] != '"')
        return false;
    for (size_t i = 1; i + 1 < s.len; i++)
        if (s.data[i] <= 0x20 || s.data[i] >= 0x7F || s.data[i] == '"')
            return false;
    return true;
}

static int request_condition(struct request *req, const char *name, struct slice etag, bool may_be_weak,
                             struct err *err)
{
    int shown = etag.len < 64 ? (int)etag.len : 64;
    if (!slice_is(etag, "*") && !is_entity_tag(etag, may_be_weak))
        return err_set(err, ERR_PERMANENT,
                       "\"%.*s\" is not %s entity tag for %s: it is written with its quotes", shown,
                       etag.data ? etag.data : "", may_be_weak ? "an" : "a strong", name);
    return request_header(req, name, etag, err);
}

int request_if_match(struct request *req, struct slice etag, struct err *err)
{
    req->if_match = true;
    return request_condition(req, "If-Match", etag, false, err);
}

int request_if_none_match(struct request *req, struct slice etag, struct err *err)
{
    req->if_none_match = true;
    return request_condition(req, "If-None-Match", etag, true, err);
}
