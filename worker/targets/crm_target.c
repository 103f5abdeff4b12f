/* The CRM API: an order is a document under its customer, written by PUT with a precondition. */
#include "worker/targets/target.h"

#include <jansson.h>
#include <string.h>

#include "worker/targets/json_source.h"

/*
 * order.placed      PUT /v1/customers/{customer}/orders/{order} with If-None-Match: *  (412: it is there already)
 * order.changed     the same, with If-Match when the payload has an "etag" that is not null: the version that the change was made of (412:
 *                   conflict, but done when an earlier attempt may have arrived; targeting.c)
 * order.cancelled   the same, no precondition: the payload's status says it
 * order = the event's key, customer = the payload's "customer". Body: the payload as it is.
 */

/* The payload as JSON object; -1 with err. Duplicate names are refused: two readers could see two customers. */
static int crm_parse(struct json_source *s, struct slice value, struct err *err)
{
    struct err why = {0};
    if (json_source_read(s, value, JSON_REJECT_DUPLICATES, &why) < 0)
        return err_set(err, ERR_PERMANENT, "the payload is not JSON: %s", why.message);
    if (json_is_object(s->root))
        return 0;
    json_source_done(s);
    return err_set(err, ERR_PERMANENT, "the payload is JSON but not an object");
}

static struct slice crm_field(const json_t *root, const char *name)
{
    const json_t *field = json_object_get(root, name);
    if (!json_is_string(field))
        return (struct slice){NULL, 0};
    return (struct slice){json_string_value(field), json_string_length(field)};
}

/* The change was made of one version: "*", which RFC 9110 takes for any, and what is no text name none, and are no reason to go without. */
static int crm_precondition(const json_t *root, struct request *req, struct err *err)
{
    const json_t *etag = json_object_get(root, "etag");

    if (!etag || json_is_null(etag))
        return 0;
    if (!json_is_string(etag) || strcmp(json_string_value(etag), "*") == 0)
        return err_set(
            err, ERR_PERMANENT,
            "field \"etag\" of the payload is no entity tag: it is a text with its quotes, or null");
    return request_if_match(req, crm_field(root, "etag"), err);
}

static int crm_fill(const struct event *ev, const json_t *root, struct request *req, struct err *err)
{
    if (buf_puts(&req->path, "/v1/customers") < 0 ||
        request_segment(req, "field \"customer\" of the payload", crm_field(root, "customer"), err) < 0 ||
        buf_puts(&req->path, "/orders") < 0 ||
        request_segment(req, "the key, which is the order id,", ev->key, err) < 0)
        return -1;
    if (slice_is(ev->type, "order.placed") && request_if_none_match(req, SLICE_LIT("*"), err) < 0)
        return -1;
    if (slice_is(ev->type, "order.changed") && crm_precondition(root, req, err) < 0)
        return -1;
    req->method = "PUT";
    req->body = ev->value;
    return 0;
}

static enum target_answer crm_map(void *context, const struct event *ev, struct request *req,
                                  enum reason *ret_reason, struct err *err)
{
    (void)context;
    if (!slice_is(ev->type, "order.placed") && !slice_is(ev->type, "order.changed") &&
        !slice_is(ev->type, "order.cancelled"))
        return TARGET_SKIP;

    if (!ev->value.data) {
        err_set(err, ERR_PERMANENT, "a null value says nothing about an order");
        *ret_reason = REASON_TOMBSTONE;
        return TARGET_POISON;
    }
    *ret_reason = REASON_NOT_MAPPABLE;
    struct json_source payload;
    if (crm_parse(&payload, ev->value, err) < 0)
        return TARGET_POISON;
    int r = crm_fill(ev, payload.root, req, err);
    json_source_done(&payload);
    return r < 0 ? TARGET_POISON : TARGET_SEND;
}

const struct target crm_target = {
    .name = "crm",
    .program = "tandem-crm",
    .summary = "Delivers order events from Kafka to the CRM API, in order per key, with retries and a "
               "dead-letter topic.",
    .default_url = "http://127.0.0.1:8082",
    .default_admin = "127.0.0.1:9103",
    .map = crm_map,
};
