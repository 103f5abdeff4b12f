/* The sample inventory API: a reservation per order, made or replaced by POST, given back by DELETE. */
#include "tests/rig/sample_api.h"

#include <string.h>

#define PREFIX "/v1/reservations"

static int inventory_address(struct sample_call *call)
{
    const char *rest;

    if (strcmp(call->path, PREFIX) == 0)
        return strcmp(call->method, "POST") == 0 ? sample_read_body(call) : 405;
    if (sample_segment(call->path, PREFIX "/", call->order, &rest) != 0 || *rest)
        return 404;
    return strcmp(call->method, "DELETE") == 0 ? 0 : 405;
}

static int inventory_execute(const struct sample_call *call, struct sample_order *order)
{
    bool was_present = order->present;

    if (call->method[0] == 'D') {
        order->present = false;
        order->cancelled = true;
        return was_present ? 204 : 404;
    }
    order->present = true;
    order->cancelled = false;
    return was_present ? 200 : 201;
}

static const struct sample_api inventory_api = {
    .program = "inventory-api",
    .summary = "The sample inventory API: POST /v1/reservations (several at once: /v1/reservations/batch), "
               "DELETE /v1/reservations/{order}.",
    .batches = PREFIX,
    .default_listen = "127.0.0.1:8081",
    .address = inventory_address,
    .execute = inventory_execute,
};

int main(int argc, char **argv)
{
    return sample_main(&inventory_api, argc, argv);
}
