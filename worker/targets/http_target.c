/* The generic target: what the configuration says, as map and judge. */
#include "worker/targets/http_target.h"

#include <string.h>

#include "common/options_file.h"
#include "worker/targets/http_jq.h"

static const struct option http_table[] = {
#define OPTION(...) OPTION_ROW(struct http_options, __VA_ARGS__),
#define OPTION_GROUP(title) OPTION_GROUP_ROW(title),
#include "worker/targets/http_options.def"
#undef OPTION
#undef OPTION_GROUP
};
_Static_assert(sizeof(struct http_options) <= TARGET_OPTIONS_BYTES_MAX, "the options fit");

#define PROGRAM_BYTES_MAX 65536
#define JQ_OUTPUT_SLACK 65536 /* beside the body: path, headers, and the escapes of JSON */

struct http_context {
    struct http_routes *routes;
    bool has_routes;
    struct jq_helper *request, *response; /* NULL: no such program */
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
    jq_helper_free(c->request);
    jq_helper_free(c->response);
    free(c);
}

/* The program as it stands in the option, or in the file that the other one names. *ret stays NULL without either. */
static int open_program(const char *name, const char *text, const char *path, const struct jq_limits *limits,
                        struct jq_helper **ret, struct err *err)
{
    struct buf program;
    if (*text && *path)
        return err_set(err, ERR_PERMANENT, "%s and %s_file are both set: keep one of them", name, name);
    if (!*text && !*path)
        return 0;
    buf_init(&program, PROGRAM_BYTES_MAX);
    int r = *path ? options_file_read(path, &program, err) : buf_puts(&program, text);
    if (r == 0)
        *ret = jq_helper_new(name, buf_str(&program), limits, err);
    else
        err_prefix(err, "%s_file: ", name);
    buf_done(&program);
    return *ret ? 0 : -1;
}

static int open_programs(struct http_context *c, const struct http_options *o, struct err *err)
{
    const struct jq_limits limits = {.cpu_ns = o->jq_cpu_max,
                                     .memory_bytes = (size_t)o->jq_memory_max,
                                     .output_bytes = (size_t)o->jq_memory_max / 4 + JQ_OUTPUT_SLACK};
    if (open_program("jq_request", o->jq_request, o->jq_request_file, &limits, &c->request, err) < 0)
        return -1;
    return open_program("jq_response", o->jq_response, o->jq_response_file, &limits, &c->response, err);
}

static int http_open(const void *options, void **ret_context, struct err *err)
{
    const struct http_options *o = options;

    if (check_destination(o->destination, err) < 0)
        return -1;
    if (o->route.count == 0 && !*o->jq_request && !*o->jq_request_file)
        return err_set(
            err, ERR_PERMANENT,
            "no event would become a request: give route, like \"order.* POST /v1/orders\", or jq_request");
    struct http_context *c = calloc(1, sizeof *c);
    ENSURE(c);
    c->routes = http_routes_new(&o->route, &o->header, err);
    if (!c->routes || open_programs(c, o, err) < 0) {
        http_close(c);
        return -1;
    }
    c->has_routes = o->route.count > 0;
    *ret_context = c;
    return 0;
}

static enum target_answer http_map(void *context, const struct event *ev, struct request *req,
                                   enum reason *ret_reason, struct err *err)
{
    const struct http_context *c = context;
    enum target_answer answer = http_routes_map(c->routes, ev, req, ret_reason, err);
    if (!c->request || answer == TARGET_POISON || (answer == TARGET_SKIP && c->has_routes))
        return answer;
    *ret_reason = REASON_NOT_MAPPABLE;
    return http_jq_map(c->request, ev, req, err);
}

/* A program that fails leaves the answer to the rules. */
static bool http_judge(void *context, const struct answer *a, struct ruling *ret, struct err *err)
{
    const struct http_context *c = context;
    bool decided = false;

    return http_jq_judge(c->response, a, &decided, ret, err) == 0 && decided;
}

static bool http_judges(const void *context)
{
    return ((const struct http_context *)context)->response != NULL;
}

const struct target http_target = {
    .program = "tandem-http",
    .summary =
        "Delivers events from Kafka to an HTTP API that its configuration describes, in order per key, with "
        "retries and a dead-letter topic.",
    .default_admin = "127.0.0.1:9104",
    .batches = true,
    .options = http_table,
    .option_count = ARRAY_LEN(http_table),
    .name_of = http_name,
    .open = http_open,
    .close = http_close,
    .map = http_map,
    .judge = http_judge,
    .judges = http_judges,
};
