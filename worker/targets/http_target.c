/* The generic target: what the configuration says, as map and judge. */
#include "worker/targets/http_target.h"

#include <string.h>

static const struct option http_table[] = {
#define OPTION(...) OPTION_ROW(struct http_options, __VA_ARGS__),
#define OPTION_GROUP(title) OPTION_GROUP_ROW(title),
#include "worker/targets/http_options.def"
#undef OPTION
#undef OPTION_GROUP
};
_Static_assert(sizeof(struct http_options) <= TARGET_OPTIONS_BYTES_MAX, "the options fit");

struct http_context {
    struct http_routes *routes;
};

static const char *http_name(const void *options)
{
    return ((const struct http_options *)options)->destination;
}

/* It becomes part of topic names. */
static int check_destination(const char *name, struct err *err)
{
    size_t len = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");
    if (name[len] == '\0')
        return 0;
    return err_set(err, ERR_PERMANENT, "destination \"%s\": letters, digits, \".\", \"_\" and \"-\" only",
                   name);
}

static void http_close(void *context)
{
    struct http_context *c = context;
    if (!c)
        return;
    http_routes_free(c->routes);
    free(c);
}

static int http_open(const void *options, void **ret_context, struct err *err)
{
    const struct http_options *o = options;

    if (check_destination(o->destination, err) < 0)
        return -1;
    if (o->route.count == 0)
        return err_set(err, ERR_PERMANENT,
                       "no event would become a request: give route, like \"order.* POST /v1/orders\"");
    struct http_context *c = calloc(1, sizeof *c);
    ENSURE(c);
    c->routes = http_routes_new(&o->route, &o->header, err);
    if (!c->routes) {
        http_close(c);
        return -1;
    }
    *ret_context = c;
    return 0;
}

static enum target_answer http_map(void *context, const struct event *ev, struct request *req,
                                   enum reason *ret_reason, struct err *err)
{
    const struct http_context *c = context;
    return http_routes_map(c->routes, ev, req, ret_reason, err);
}

const struct target http_target = {
    .program = "tandem-http",
    .summary =
        "Delivers events from Kafka to an HTTP API that its configuration describes, in order per key, with "
        "retries and a dead-letter topic.",
    .default_admin = "127.0.0.1:9104",
    .options = http_table,
    .option_count = ARRAY_LEN(http_table),
    .name_of = http_name,
    .open = http_open,
    .close = http_close,
    .map = http_map,
};
