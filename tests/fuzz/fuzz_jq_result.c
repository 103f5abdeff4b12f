/* Whatever a jq program's process writes: a request that HTTP can carry and that names what it says, or an error that says why. */
#include <jansson.h>
#include <string.h>

#include "worker/targets/http_jq.h"

#define BODY_BYTES_MAX 4096

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

/* "." and "..", also written with %2e, would name another resource. */
static void check_segment(const char *at, size_t len)
{
    size_t dots = 0, i = 0;
    for (; i < len; dots++)
        if (at[i] == '.')
            i++;
        else if (len - i >= 3 && strncasecmp(at + i, "%2e", 3) == 0)
            i += 3;
        else
            return;
    ENSURE(dots != 1 && dots != 2);
}

static void check_path(const struct buf *path)
{
    const char *text = buf_str(path);

    ENSURE(text[0] == '/' && strlen(text) == path->len && path->len <= REQUEST_PATH_BYTES_MAX);
    for (const char *c = text; *c; c++)
        ENSURE(*c > ' ' && *c < 127 && *c != '#' && *c != '"' && *c != '<' && *c != '>' && *c != '\\');
    for (const char *at = text; *at == '/';) {
        size_t len = strcspn(at + 1, "/?");
        check_segment(at + 1, len);
        at += 1 + len;
    }
}

static void check_headers(const struct request *req)
{
    const char *line = buf_str(&req->headers), *end = line + req->headers.len;

    for (; line < end; line += strlen(line) + 1) {
        ENSURE(strchr(line, ':') > line);
        for (const char *c = line; *c; c++)
            ENSURE(*c >= ' ' && *c < 127);
        ENSURE(strncasecmp(line, "Host:", 5) != 0 && strncasecmp(line, "Content-Length:", 15) != 0);
    }
    if (req->content_type)
        for (const char *c = req->content_type; *c; c++)
            ENSURE(*c >= ' ' && *c < 127);
}

static void take_request(const struct json_source *read)
{
    const json_t *result = read->root;
    struct request req;
    struct err err = {0};

    request_init(&req, BODY_BYTES_MAX);
    enum target_answer answer = http_jq_take_request(read, &req, &err);
    if (answer == TARGET_SEND) {
        const char *method = json_string_value(json_object_get(result, "method"));
        ENSURE(strcmp(method, req.method) == 0);
        ENSURE(strlen(method) == json_string_length(json_object_get(result, "method")));
        const json_t *path = json_object_get(result, "path");
        if (json_is_string(path)) /* and what the query adds */
            ENSURE(strlen(buf_str(&req.path)) >= json_string_length(path));
        check_path(&req.path);
        check_headers(&req);
        ENSURE(req.body.len <= BODY_BYTES_MAX);
    } else if (answer == TARGET_SKIP)
        ENSURE(!result || json_is_null(result));
    else
        ENSURE(answer == TARGET_POISON && err.kind == ERR_PERMANENT && strlen(err.message) > 13);
    request_done(&req);
}

static void take_verdict(const json_t *result)
{
    struct ruling ruling = {.verdict = VERDICT_COUNT};
    struct err err = {0};
    bool decided = false;

    if (http_jq_take_verdict(result, &decided, &ruling, &err) < 0) {
        ENSURE(err.kind == ERR_PERMANENT && err.message[0]);
        return;
    }
    ENSURE(decided == (json_is_string(result) != 0));
    if (decided) {
        const char *name = verdict_name(ruling.verdict);
        ENSURE(ruling.verdict < VERDICT_COUNT && strncmp(json_string_value(result), name, strlen(name)) == 0);
        ENSURE(strlen(json_string_value(result)) == json_string_length(result));
    }
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    struct err err = {0};
    struct json_source result;

    if (jq_result_read("jq", (struct slice){(const char *)data, size}, &result, &err) < 0) {
        ENSURE(!result.root && err.kind == ERR_PERMANENT && err.message[0]);
        return 0;
    }
    take_verdict(result.root);
    take_request(&result);
    json_source_done(&result);
    return 0;
}
