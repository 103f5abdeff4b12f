/* The Inventory API: an order's reservation is made or replaced by POST and given back by DELETE. */
#include "worker/targets/target.h"

/*
 * order.placed, order.changed   POST /v1/reservations, the payload as it is (the API upserts by the order in the body)
 * order.cancelled               DELETE /v1/reservations/{order}, order = the event's key; not there (404) is as good as given back
 */
static enum target_answer inventory_refuse(enum reason reason, enum reason *ret_reason)
{
    *ret_reason = reason;
    return TARGET_POISON;
}

static enum target_answer inventory_map(void *context, const struct event *ev, struct request *req,
                                        enum reason *ret_reason, struct err *err)
{
    (void)context;
    bool cancelled = slice_is(ev->type, "order.cancelled");
    if (!cancelled && !slice_is(ev->type, "order.placed") && !slice_is(ev->type, "order.changed"))
        return TARGET_SKIP;

    if (!ev->value.data) {
        err_set(err, ERR_PERMANENT, "a null value says nothing about an order");
        return inventory_refuse(REASON_TOMBSTONE, ret_reason);
    }
    if (ev->key.len == 0) {
        err_set(err, ERR_PERMANENT, "the key, which is the order id, is %s", ev->key.data ? "empty" : "null");
        return inventory_refuse(REASON_NOT_MAPPABLE, ret_reason);
    }
    if (buf_puts(&req->path, "/v1/reservations") < 0)
        return inventory_refuse(REASON_NOT_MAPPABLE, ret_reason);
    if (!cancelled) {
        req->method = "POST";
        req->body = ev->value;
        return TARGET_SEND;
    }
    req->method = "DELETE";
    if (request_segment(req, "the key, which is the order id,", ev->key, err) < 0)
        return inventory_refuse(REASON_NOT_MAPPABLE, ret_reason);
    return TARGET_SEND;
}

const struct target inventory_target = {
    .name = "inventory",
    .program = "tandem-inventory",
    .summary = "Delivers order events from Kafka to the Inventory API, in order per key, with retries and a "
               "dead-letter topic.",
    .default_url = "http://127.0.0.1:8081",
    .default_admin = "127.0.0.1:9102",
    .batches = true,
    .map = inventory_map,
};
