/* The service's HTTP face: read and check a request, carry it out on a store, answer in JSON. */
#include <jansson.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/trace.h"
#include "producer/example/orders.h"

#define ORDERS_CUSTOMER_BYTES_MAX 128
#define ORDERS_SKU_BYTES_MAX 64
#define ORDERS_LINES_MAX 100
#define ORDERS_QUANTITY_MAX 1000000

/* The parts of a request that passed its checks. */
struct orders_body {
    char order[ORDERS_ID_BYTES];
    char customer[ORDERS_CUSTOMER_BYTES_MAX + 1];
    char *lines; /* owned, by malloc */
};

static void orders_body_done(struct orders_body *body)
{
    free(body->lines);
}

static void orders_answer_error(struct httpd_response *res, int status, const char *message)
{
    json_t *json = json_pack("{s:s}", "error", message);
    char *text = json ? json_dumps(json, 0) : NULL;
    buf_reset(&res->body);
    buf_puts(&res->body, text ? text : "{\"error\":\"unprintable\"}");
    free(text);
    json_decref(json);
    res->status = status;
    if (status == 503) {
        snprintf(res->extra_name[0], sizeof(res->extra_name[0]), "Retry-After");
        snprintf(res->extra_value[0], sizeof(res->extra_value[0]), "1");
    }
}

/* ---- reading a request ---- */

static bool orders_is_id(const char *id)
{
    size_t len = strspn(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");
    return len > 0 && len < ORDERS_ID_BYTES && !id[len];
}

static int orders_check_line(const json_t *line, size_t at, struct err *err)
{
    const json_t *sku = json_object_get(line, "sku"), *quantity = json_object_get(line, "quantity");
    if (!json_is_object(line) || json_object_size(line) != 2 || !json_is_string(sku) ||
        !json_is_integer(quantity))
        return err_set(err, ERR_PERMANENT, "line %zu is not {\"sku\": text, \"quantity\": number}", at);
    if (json_string_length(sku) < 1 || json_string_length(sku) > ORDERS_SKU_BYTES_MAX)
        return err_set(err, ERR_PERMANENT, "the sku of line %zu has not 1 to %d bytes", at,
                       ORDERS_SKU_BYTES_MAX);
    if (json_integer_value(quantity) < 1 || json_integer_value(quantity) > ORDERS_QUANTITY_MAX)
        return err_set(err, ERR_PERMANENT, "the quantity of line %zu is not 1 to %d", at,
                       ORDERS_QUANTITY_MAX);
    return 0;
}

static int orders_read_lines(const json_t *lines, struct orders_body *body, struct err *err)
{
    size_t count = json_array_size(lines);
    if (!json_is_array(lines) || count < 1 || count > ORDERS_LINES_MAX)
        return err_set(err, ERR_PERMANENT, "\"lines\" is not an array of 1 to %d lines", ORDERS_LINES_MAX);
    for (size_t i = 0; i < count; i++)
        if (orders_check_line(json_array_get(lines, i), i, err) < 0)
            return -1;
    body->lines = json_dumps(lines, JSON_COMPACT);
    return body->lines ? 0 : err_set(err, ERR_TEMPORARY, "no memory for the lines");
}

static int orders_read_customer(const json_t *customer, struct orders_body *body, struct err *err)
{
    if (!json_is_string(customer) || json_string_length(customer) < 1 ||
        json_string_length(customer) > ORDERS_CUSTOMER_BYTES_MAX)
        return err_set(err, ERR_PERMANENT, "\"customer\" is not a text of 1 to %d bytes",
                       ORDERS_CUSTOMER_BYTES_MAX);
    memcpy(body->customer, json_string_value(customer), json_string_length(customer) + 1);
    return 0;
}

/* "order" of the body, or a new random id. */
static int orders_read_id(const json_t *id, struct orders_body *body, struct err *err)
{
    struct trace random;
    if (!id) {
        trace_start(&random);
        char hex[33];
        snprintf(body->order, sizeof(body->order), "o-%.20s", trace_id_hex(&random, hex));
        return 0;
    }
    if (!json_is_string(id) || !orders_is_id(json_string_value(id)))
        return err_set(err, ERR_PERMANENT, "\"order\" is not 1 to %d of [A-Za-z0-9._-]", ORDERS_ID_BYTES - 1);
    memcpy(body->order, json_string_value(id), json_string_length(id) + 1);
    return 0;
}

/* with_order: a new order (customer, lines, order); else only new lines. */
static int orders_read_body(const struct httpd_request *req, bool with_order, struct orders_body *body,
                            struct err *err)
{
    json_error_t why;
    json_t *json = json_loadb(req->body ? req->body : "", req->body_len, JSON_REJECT_DUPLICATES, &why);
    if (!json)
        return err_set(err, ERR_PERMANENT, "the body is not JSON: line %d, %s", why.line, why.text);
    int ret = 0;
    const char *name;
    json_t *value;
    if (!json_is_object(json))
        ret = err_set(err, ERR_PERMANENT, "the body is not a JSON object");
    json_object_foreach(
        json, name, value) if (strcmp(name, "lines") != 0 &&
                               (!with_order || (strcmp(name, "customer") != 0 && strcmp(name, "order") != 0)))
        ret = err_set(err, ERR_PERMANENT, "unknown member \"%.64s\"", name);
    if (ret == 0 && with_order &&
        (orders_read_customer(json_object_get(json, "customer"), body, err) < 0 ||
         orders_read_id(json_object_get(json, "order"), body, err) < 0))
        ret = -1;
    if (ret == 0)
        ret = orders_read_lines(json_object_get(json, "lines"), body, err);
    json_decref(json);
    return ret;
}

/* The caller's trace goes on with the event; a malformed one is not the order's fault. */
static const char *orders_read_trace(const struct httpd_request *req)
{
    const char *text = httpd_header(req, "traceparent");
    struct trace t;
    if (!text || strlen(text) != TRACE_PARENT_BYTES - 1 ||
        trace_parse((struct slice){text, strlen(text)}, &t) < 0)
        return NULL;
    return text;
}

/* ---- carrying it out ---- */

static void orders_answer(struct httpd_response *res, enum orders_result result, int status,
                          const char *order, int64_t version, const struct err *err)
{
    switch (result) {
    case ORDERS_DONE:
        res->status = status;
        if (version > 0)
            buf_printf(&res->body, "{\"order\":\"%s\",\"version\":%lld}", order, (long long)version);
        return;
    case ORDERS_MISSING:
        orders_answer_error(res, 404, "no such order");
        return;
    case ORDERS_CONFLICT:
        orders_answer_error(
            res, 409, status == 201 ? "an order of this id is there already" : "the order is cancelled");
        return;
    case ORDERS_UNKNOWN:
        orders_answer_error(res, 503,
                            "the answer to the commit was lost: ask for the order before trying again");
        break;
    case ORDERS_FAILED:
        orders_answer_error(res, err->kind == ERR_TEMPORARY ? 503 : 500, "the order could not be stored");
        break;
    }
    LOG_WARNING("request failed", LOG_STR("order", order), LOG_STR("error", err->message));
}

enum orders_verb { ORDERS_PLACE, ORDERS_CHANGE, ORDERS_CANCEL, ORDERS_GET };

static enum orders_result orders_carry_out(enum orders_verb verb, struct orders_store *s,
                                           const struct orders_change *c, struct buf *ret_json,
                                           int64_t *ret_version, struct err *err)
{
    if (orders_store_open(s, clock_monotonic_ns(), err) < 0)
        return ORDERS_FAILED;
    switch (verb) {
    case ORDERS_PLACE:
        return orders_place(s, c, ret_version, err);
    case ORDERS_CHANGE:
        return orders_change_lines(s, c, ret_version, err);
    case ORDERS_CANCEL:
        return orders_cancel(s, c, ret_version, err);
    case ORDERS_GET:
        break;
    }
    return orders_get(s, c->order, ret_json, err);
}

static void orders_serve(enum orders_verb verb, struct orders_pool *pool, const struct httpd_request *req,
                         const struct orders_body *body, struct httpd_response *res)
{
    struct err err = {0};
    struct orders_change c = {body->order, body->customer, body->lines, orders_read_trace(req)};
    int64_t version = 0;
    struct orders_store *s = orders_pool_borrow(pool);
    if (!s) {
        orders_answer_error(res, 503, "too busy");
        return;
    }
    enum orders_result result = orders_carry_out(verb, s, &c, &res->body, &version, &err);
    orders_pool_return(pool, s);
    orders_answer(res, result, verb == ORDERS_PLACE ? 201 : 200, body->order, version, &err);
}

/* ---- which request it is ---- */

/* The order id between "/orders/" and suffix; false when path has another shape. */
static bool orders_match(const char *path, const char *suffix, char ret_id[ORDERS_ID_BYTES])
{
    if (strncmp(path, "/orders/", 8) != 0)
        return false;
    size_t id_len = strcspn(path + 8, "/");
    if (id_len == 0 || id_len >= ORDERS_ID_BYTES || strcmp(path + 8 + id_len, suffix) != 0)
        return false;
    memcpy(ret_id, path + 8, id_len);
    ret_id[id_len] = '\0';
    return orders_is_id(ret_id);
}

static const struct {
    const char *suffix; /* after the id; NULL: no id in the path */
    const char *method;
    enum orders_verb verb;
} orders_routes[] = {
    {NULL, "POST", ORDERS_PLACE},
    {"/lines", "POST", ORDERS_CHANGE},
    {"/cancel", "POST", ORDERS_CANCEL},
    {"", "GET", ORDERS_GET},
};

static void orders_route(struct orders_pool *pool, const struct httpd_request *req, size_t at,
                         struct orders_body *body, struct httpd_response *res)
{
    enum orders_verb verb = orders_routes[at].verb;
    struct err err = {0};
    if (strcmp(req->method, orders_routes[at].method) != 0) {
        orders_answer_error(res, 405, "wrong method");
        snprintf(res->extra_name[0], sizeof(res->extra_name[0]), "Allow");
        snprintf(res->extra_value[0], sizeof(res->extra_value[0]), "%s", orders_routes[at].method);
    } else if ((verb == ORDERS_PLACE || verb == ORDERS_CHANGE) &&
               orders_read_body(req, verb == ORDERS_PLACE, body, &err) < 0) {
        orders_answer_error(res, err.kind == ERR_TEMPORARY ? 503 : 400, err.message);
    } else {
        orders_serve(verb, pool, req, body, res);
    }
}

void orders_api(void *pool, const struct httpd_request *req, struct httpd_response *res)
{
    res->content_type = "application/json";
    if (strcmp(req->path, "/healthz") == 0) {
        buf_puts(&res->body, "{\"status\":\"ok\"}");
        return;
    }
    struct orders_body body = {.lines = NULL};
    for (size_t i = 0; i < ARRAY_LEN(orders_routes); i++) {
        bool match = orders_routes[i].suffix ? orders_match(req->path, orders_routes[i].suffix, body.order)
                                             : strcmp(req->path, "/orders") == 0;
        if (match) {
            orders_route(pool, req, i, &body, res);
            orders_body_done(&body);
            return;
        }
    }
    orders_answer_error(res, 404, "no such path");
}
