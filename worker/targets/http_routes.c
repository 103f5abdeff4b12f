/* Finds an event's route and fills its templates: method, path, headers. */
#include <string.h>
#include <strings.h>

#include "worker/targets/http_target.h"
#include "worker/targets/template.h"

#define LINE_BYTES_MAX OPTIONS_ITEM_BYTES_MAX

struct route {
    char *type;
    const char *method;
    struct template *path;
};

struct header {
    char *type; /* NULL: of each request */
    char *name;
    struct template *value;
};

struct http_routes {
    struct route *routes;
    size_t route_count;
    struct header *headers;
    size_t header_count;
};

/* ---- what a request may have ------------------------------------------------------------------------------------------------------ */

const char *http_method(const char *name)
{
    static const char *const methods[] = {"POST", "PUT", "PATCH", "DELETE", "GET"};
    for (size_t i = 0; i < ARRAY_LEN(methods); i++)
        if (strcmp(methods[i], name) == 0)
            return methods[i];
    return NULL;
}

/* RFC 9110 5.6.2 */
static bool is_token(const char *s)
{
    static const char more[] =
        "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    return *s && s[strspn(s, more)] == '\0' && strlen(s) <= 128;
}

int http_header_check(const char *name, struct err *err)
{
    static const char *const ours[] = {"Host",
                                       "Content-Length",
                                       "Transfer-Encoding",
                                       "Connection",
                                       "Expect",
                                       "Upgrade",
                                       "TE",
                                       "Trailer",
                                       "Idempotency-Key",
                                       "traceparent",
                                       "User-Agent",
                                       "Authorization",
                                       "Proxy-Authorization",
                                       "Cookie",
                                       "webhook-id",
                                       "webhook-timestamp",
                                       "webhook-signature"};
    if (!is_token(name))
        return err_set(err, ERR_PERMANENT, "\"%.64s\" is not the name of a header", name);
    for (size_t i = 0; i < ARRAY_LEN(ours); i++)
        if (strcasecmp(name, ours[i]) == 0)
            return err_set(err, ERR_PERMANENT,
                           "header \"%s\" is the worker's own: it has options for it, or none", ours[i]);
    if (strncasecmp(name, "ce-", 3) == 0)
        return err_set(err, ERR_PERMANENT, "header \"%.64s\" is an attribute of the event", name);
    return 0;
}

static int put_content_type(struct request *req, struct slice value, struct err *err)
{
    if (value.len >= sizeof req->own_type)
        return err_set(err, ERR_PERMANENT, "the content type is longer than %d bytes",
                       REQUEST_TYPE_BYTES - 1);
    for (size_t i = 0; i < value.len; i++)
        if (value.data[i] < 0x20 || value.data[i] > 0x7E)
            return err_set(err, ERR_PERMANENT, "the content type has characters that no header can carry");
    memcpy(req->own_type, value.data, value.len);
    req->own_type[value.len] = '\0';
    req->content_type = req->own_type;
    return 0;
}

int http_header_put(struct request *req, const char *name, struct slice value, struct err *err)
{
    if (strcasecmp(name, "If-Match") == 0)
        return request_if_match(req, value, err);
    if (strcasecmp(name, "If-None-Match") == 0)
        return request_if_none_match(req, value, err);
    if (strcasecmp(name, "Content-Type") == 0)
        return put_content_type(req, value, err);
    return request_header(req, name, value, err);
}

/* ---- taking the lines apart -------------------------------------------------------------------------------------------------------- */

static char *next_word(char **rest)
{
    *rest += strspn(*rest, " \t");
    char *word = *rest;
    *rest += strcspn(*rest, " \t");
    if (**rest)
        *(*rest)++ = '\0';
    return word;
}

static char *copy_of(const char *s)
{
    char *copy = strdup(s);
    ENSURE(copy);
    return copy;
}

static int parse_route(char *line, struct route *r, struct err *err)
{
    char *rest = line;
    const char *type = next_word(&rest), *method = next_word(&rest);
    rest += strspn(rest, " \t");

    if (!*rest)
        return err_set(err, ERR_PERMANENT,
                       "it is written TYPE METHOD PATH, like order.placed POST /v1/orders");
    r->method = http_method(method);
    if (!r->method)
        return err_set(err, ERR_PERMANENT, "\"%.64s\" is not one of POST, PUT, PATCH, DELETE and GET",
                       method);
    r->type = copy_of(type);
    r->path = template_parse(rest, err);
    return r->path ? template_check_path(r->path, err) : -1;
}

static int parse_header(char *line, struct header *h, struct err *err)
{
    char *rest = line;
    char *name = next_word(&rest);

    if (*name && name[strlen(name) - 1] != ':') {
        h->type = copy_of(name);
        name = next_word(&rest);
    }
    size_t len = strlen(name);
    if (len < 2 || name[len - 1] != ':')
        return err_set(err, ERR_PERMANENT,
                       "it is written NAME: VALUE, with the type before it where it is for one");
    name[len - 1] = '\0';
    if (http_header_check(name, err) < 0)
        return -1;
    h->name = copy_of(name);
    h->value = template_parse(rest + strspn(rest, " \t"), err);
    return h->value ? 0 : -1;
}

/* As it was written, for errors, beside the copy that is taken apart. */
static int parse_line(const char *what, const char *line, struct http_routes *r, struct err *err)
{
    char *copy = copy_of(line);
    struct err why = {0};
    int rc = *what == 'r' ? parse_route(copy, &r->routes[r->route_count++], &why)
                          : parse_header(copy, &r->headers[r->header_count++], &why);
    free(copy);
    return rc == 0 ? 0 : err_set(err, ERR_PERMANENT, "%s \"%.200s\": %s", what, line, why.message);
}

struct http_routes *http_routes_new(const struct option_list *routes, const struct option_list *headers,
                                    struct err *err)
{
    struct http_routes *r = calloc(1, sizeof *r);
    ENSURE(r);
    r->routes = calloc(routes->count + 1, sizeof *r->routes);
    r->headers = calloc(headers->count + 1, sizeof *r->headers);
    ENSURE(r->routes && r->headers);
    int rc = 0;
    for (size_t i = 0; i < routes->count && rc == 0; i++)
        rc = parse_line("route", routes->items[i], r, err);
    for (size_t i = 0; i < headers->count && rc == 0; i++)
        rc = parse_line("header", headers->items[i], r, err);
    if (rc == 0)
        return r;
    http_routes_free(r);
    return NULL;
}

void http_routes_free(struct http_routes *r)
{
    if (!r)
        return;
    for (size_t i = 0; i < r->route_count; i++) {
        free(r->routes[i].type);
        template_free(r->routes[i].path);
    }
    for (size_t i = 0; i < r->header_count; i++) {
        free(r->headers[i].type);
        free(r->headers[i].name);
        template_free(r->headers[i].value);
    }
    free(r->routes);
    free(r->headers);
    free(r);
}

/* ---- an event becomes a request ------------------------------------------------------------------------------------------------------ */

static bool fits_type(const char *pattern, struct slice type)
{
    size_t len = strlen(pattern);
    if (len == 0 || pattern[len - 1] != '*')
        return slice_is(type, pattern);
    return type.len >= len - 1 && memcmp(type.data, pattern, len - 1) == 0;
}

static int map_header(const struct header *h, struct facts *f, struct request *req, struct err *err)
{
    struct err why = {0};
    struct buf value;
    buf_init(&value, REQUEST_HEADER_BYTES_MAX);
    int rc = 0;
    switch (template_fill(h->value, f, &value, &why)) {
    case TEMPLATE_DONE:
        rc = http_header_put(req, h->name, (struct slice){buf_str(&value), value.len}, &why);
        break;
    case TEMPLATE_MISSING:
        break;
    case TEMPLATE_FAILED:
        rc = -1;
    }
    buf_done(&value);
    return rc == 0 ? 0 : err_set(err, ERR_PERMANENT, "header %s: %s", h->name, why.message);
}

static int map_with(const struct http_routes *r, const struct route *route, struct facts *f,
                    struct request *req, struct err *err)
{
    req->method = route->method;
    if (template_fill_path(route->path, f, &req->path, err) != TEMPLATE_DONE)
        return -1;
    if (request_expects_body(route->method))
        req->body = f->ev->value;
    for (size_t i = 0; i < r->header_count; i++) {
        const struct header *h = &r->headers[i];
        if ((!h->type || fits_type(h->type, f->ev->type)) && map_header(h, f, req, err) < 0)
            return -1;
    }
    return 0;
}

enum target_answer http_routes_map(const struct http_routes *r, const struct event *ev, struct request *req,
                                   enum reason *ret_reason, struct err *err)
{
    const struct route *route = NULL;
    for (size_t i = 0; i < r->route_count && !route; i++)
        if (fits_type(r->routes[i].type, ev->type))
            route = &r->routes[i];
    if (!route)
        return TARGET_SKIP;

    struct facts f = {.ev = ev};
    int rc = map_with(r, route, &f, req, err);
    facts_done(&f);
    *ret_reason = REASON_NOT_MAPPABLE;
    return rc < 0 ? TARGET_POISON : TARGET_SEND;
}
