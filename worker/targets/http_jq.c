/* Turns events and answers into a jq program's input, and its result into a request or a verdict. */
#include "worker/targets/http_jq.h"

#include <ctype.h>
#include <jansson.h>
#include <string.h>

#include "common/utf8.h"
#include "worker/targets/rules.h"
#include "worker/targets/template.h"

/* ---- the input -------------------------------------------------------------------------------------------------------------------------- */

/* What is not there, or is no text, is left out. */
static void put_text(json_t *object, const char *name, struct slice value)
{
    if (value.data && utf8_valid(value.data, value.len))
        json_object_set_new(object, name, json_stringn(value.data, value.len));
}

/* CloudEvents 1.0, JSON format 2. */
static json_t *event_object(const struct event *ev)
{
    json_t *o = json_object();
    ENSURE(o);
    json_object_set_new(o, "specversion", json_string("1.0"));
    put_text(o, "id", ev->id);
    put_text(o, "source", ev->source);
    put_text(o, "type", ev->type);
    put_text(o, "time", ev->time);
    put_text(o, "subject", ev->subject);
    put_text(o, "datacontenttype", ev->content_type);
    put_text(o, "key", ev->key);
    return o;
}

static int ask(struct jq_helper *h, json_t *about, struct jq_question q, struct json_source *ret,
               struct err *err)
{
    char *text = json_dumps(about, JSON_COMPACT);
    ENSURE(text);
    q.about = text;
    int r = jq_helper_ask(h, &q, ret, err);
    free(text);
    json_decref(about);
    return r;
}

/* ---- a request -------------------------------------------------------------------------------------------------------------------------- */

static int no_room(struct err *err)
{
    return err_set(err, ERR_PERMANENT, "the request's path is longer than %d bytes", REQUEST_PATH_BYTES_MAX);
}

static int no_route(const char *missing, struct err *err)
{
    return err_set(err, ERR_PERMANENT, "there are no routes, and its result has no \"%s\"", missing);
}

/* A text that is the same when it is taken for a C string: behind a \u0000 nobody would look. NULL: another value. */
static const char *whole_text(const json_t *v)
{
    const char *text = json_string_value(v);
    return text && strlen(text) == json_string_length(v) ? text : NULL;
}

static int take_method(struct request *req, const struct json_source *s, const json_t *v, struct err *err)
{
    (void)s;
    const char *name = whole_text(v);
    const char *method = name ? http_method(name) : NULL;
    if (!method)
        return err_set(err, ERR_PERMANENT, "\"method\" is not one of POST, PUT, PATCH, DELETE and GET");
    req->method = method;
    return 0;
}

/* As a template without places, so that the same is allowed. */
static int take_path_text(struct request *req, const char *text, struct err *err)
{
    struct facts none = {.ev = NULL};
    if (strpbrk(text, "{}"))
        return err_set(err, ERR_PERMANENT, "\"path\" has a brace, which is written percent-encoded");
    struct template *t = template_parse(text, err);
    int r = !t || template_check_path(t, err) < 0 ||
                    template_fill_path(t, &none, &req->path, err) != TEMPLATE_DONE
                ? -1
                : 0;
    template_free(t);
    return r;
}

static int take_segment(struct request *req, struct slice segment, struct err *err)
{
    if (!segment.data)
        return err_set(err, ERR_PERMANENT, "a segment of \"path\" is neither text nor number");
    return request_segment(req, "a segment of \"path\"", segment, err);
}

static int take_path(struct request *req, const struct json_source *s, const json_t *v, struct err *err)
{
    size_t i;
    const json_t *segment;

    buf_reset(&req->path);
    if (whole_text(v))
        return take_path_text(req, whole_text(v), err);
    if (json_array_size(v) == 0)
        return err_set(err, ERR_PERMANENT, "\"path\" is neither a text nor an array of segments");
    json_array_foreach((json_t *)(uintptr_t)v, i, segment)
    {
        if (take_segment(req, json_source_scalar(s, segment), err) < 0)
            return -1;
    }
    return 0;
}

static int take_query(struct request *req, const struct json_source *s, const json_t *v, struct err *err)
{
    const char *name;
    json_t *value;
    const char *mark = strchr(buf_str(&req->path), '?') ? "&" : "?";

    if (!json_is_object(v))
        return err_set(err, ERR_PERMANENT, "\"query\" is not an object");
    if (req->path.len == 0) /* a query would hide that */
        return no_route("path", err);
    json_object_foreach((json_t *)(uintptr_t)v, name, value)
    {
        struct slice text = json_source_scalar(s, value);
        if (json_is_null(value))
            continue;
        if (!text.data)
            return err_set(err, ERR_PERMANENT, "\"%.64s\" of \"query\" is neither text nor number", name);
        if (buf_puts(&req->path, mark) < 0 || buf_percent(&req->path, name, strlen(name)) < 0 ||
            buf_puts(&req->path, "=") < 0 || buf_percent(&req->path, text.data, text.len) < 0)
            return no_room(err);
        mark = "&";
    }
    return 0;
}

static int take_header(struct request *req, const char *name, struct slice value, struct err *err)
{
    if (http_header_check(name, err) < 0)
        return -1;
    if (!value.data)
        return err_set(err, ERR_PERMANENT, "header \"%.64s\" is neither text nor number", name);
    request_header_drop(req, name); /* of two lines HTTP makes a list: with If-Match either would do */
    return http_header_put(req, name, value, err);
}

static int take_headers(struct request *req, const struct json_source *s, const json_t *v, struct err *err)
{
    const char *name;
    json_t *value;

    if (!json_is_object(v))
        return err_set(err, ERR_PERMANENT, "\"headers\" is not an object");
    json_object_foreach((json_t *)(uintptr_t)v, name, value)
    {
        if (!json_is_null(value) && take_header(req, name, json_source_scalar(s, value), err) < 0)
            return -1;
    }
    return 0;
}

static int take_body(struct request *req, const struct json_source *s, const json_t *v, struct err *err)
{
    req->body = (struct slice){NULL, 0};
    if (json_is_null(v))
        return 0;
    int r;
    if (json_is_string(v))
        r = buf_append(&req->own_body, json_string_value(v), json_string_length(v));
    else {
        r = json_source_write(s, v, &req->own_body);
        if (!req->content_type)
            req->content_type = "application/json";
    }
    if (r < 0)
        return err_set(err, ERR_PERMANENT, "\"body\" is larger than payload_max");
    req->body = (struct slice){buf_str(&req->own_body), req->own_body.len};
    return 0;
}

/* In this order: the query goes behind the path, and a Content-Type of the headers before that of the body. */
static const struct {
    const char *name;
    int (*take)(struct request *req, const struct json_source *s, const json_t *v, struct err *err);
} fields[] = {
    {"method", take_method},   {"path", take_path}, {"query", take_query},
    {"headers", take_headers}, {"body", take_body},
};

static int check_names(json_t *result, struct err *err)
{
    const char *name;
    json_t *value;
    json_object_foreach(result, name, value)
    {
        bool known = false;
        for (size_t i = 0; i < ARRAY_LEN(fields); i++)
            known |= strcmp(fields[i].name, name) == 0;
        if (!known)
            return err_set(err, ERR_PERMANENT,
                           "\"%.64s\" is not one of method, path, query, headers and body", name);
    }
    return 0;
}

static int take_result(struct request *req, const struct json_source *s, struct err *err)
{
    if (!json_is_object(s->root))
        return err_set(err, ERR_PERMANENT, "its result is neither an object nor null");
    if (check_names(s->root, err) < 0)
        return -1;
    for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
        const json_t *v = json_object_get(s->root, fields[i].name);
        if (v && fields[i].take(req, s, v, err) < 0)
            return -1;
    }
    if (!req->method || req->path.len == 0)
        return no_route(req->method ? "path" : "method", err);
    return 0;
}

enum target_answer http_jq_take_request(const struct json_source *result, struct request *req,
                                        struct err *err)
{
    struct err why = {0};

    if (!result->root || json_is_null(result->root))
        return TARGET_SKIP;
    if (take_result(req, result, &why) == 0)
        return TARGET_SEND;
    err_set(err, ERR_PERMANENT, "jq_request: %s", why.message);
    return TARGET_POISON;
}

enum target_answer http_jq_map(struct jq_helper *h, const struct event *ev, struct request *req,
                               struct err *err)
{
    const struct jq_question q = {.name = "data", .text = ev->value, .must_be_json = true};
    struct json_source result;
    struct err why = {0};

    if (ask(h, event_object(ev), q, &result, &why) < 0) {
        bool broken = why.kind == ERR_FATAL;
        err_set(err, broken ? ERR_FATAL : ERR_PERMANENT, "%s", why.message);
        return broken ? TARGET_BROKEN : TARGET_POISON;
    }
    enum target_answer answer = http_jq_take_request(&result, req, err);
    json_source_done(&result);
    return answer;
}

/* ---- a verdict -------------------------------------------------------------------------------------------------------------------------- */

/* Names in lower case; of several values the first. */
static json_t *headers_object(const struct answer *a)
{
    json_t *o = json_object();
    const char *end = a->headers.data + a->headers.len;
    ENSURE(o);
    for (const char *line = a->headers.data; line && line < end;) {
        char name[128];
        const char *stop = memchr(line, '\n', (size_t)(end - line));
        const char *colon = memchr(line, ':', (size_t)((stop ? stop : end) - line));
        size_t len = colon ? (size_t)(colon - line) : 0;
        for (size_t i = 0; i < len && len < sizeof name; i++)
            name[i] = (char)tolower((unsigned char)line[i]);
        if (len > 0 && len < sizeof name && utf8_valid(name, len)) {
            name[len] = '\0';
            if (!json_object_get(o, name))
                put_text(o, name, answer_header(a, name, line));
        }
        line = stop ? stop + 1 : end;
    }
    return o;
}

int http_jq_take_verdict(const json_t *result, bool *ret_decided, struct ruling *ret, struct err *err)
{
    *ret_decided = whole_text(result) != NULL;
    if (*ret_decided)
        return ruling_parse(whole_text(result), ret, err);
    if (result && !json_is_null(result))
        return err_set(err, ERR_PERMANENT, "jq_response: its result is neither a verdict nor null");
    return 0;
}

int http_jq_judge(struct jq_helper *h, const struct answer *a, bool *ret_decided, struct ruling *ret,
                  struct err *err)
{
    const struct jq_question q = {.name = "body", .text = a->body};
    json_t *about = json_pack("{s:i, s:o, s:b, s:o}", "status", a->status, "headers", headers_object(a),
                              "repeated", a->repeated, "event", event_object(a->ev));
    struct json_source result;
    struct err why = {0};

    ENSURE(about);
    /* What was ended from outside says nothing of the answer: taken for none, the rules could deliver what it would have refused. */
    if (ask(h, about, q, &result, &why) < 0)
        return err_set(err, why.kind == ERR_TEMPORARY ? ERR_FATAL : why.kind, "%s", why.message);
    int r = http_jq_take_verdict(result.root, ret_decided, ret, err);
    json_source_done(&result);
    return r;
}
