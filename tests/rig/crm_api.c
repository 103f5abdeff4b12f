/* The sample CRM API: an order is a document under its customer, written by PUT with If-Match or If-None-Match. */
#include "tests/rig/sample_api.h"

#include <stdio.h>
#include <string.h>

static int crm_address(struct sample_call *call)
{
    char customer[SAMPLE_ID_BYTES];
    const char *rest;

    if (sample_segment(call->path, "/v1/customers/", customer, &rest) != 0)
        return 404;
    char order[SAMPLE_ID_BYTES];
    if (sample_segment(rest, "/orders/", order, &rest) != 0 || *rest)
        return 404;
    if (strcmp(call->method, "PUT") != 0)
        return 405;
    int status = sample_read_body(call);
    if (status)
        return status;
    memcpy(call->order, order, sizeof(call->order)); /* the path is the address, whatever the body says */
    return 0;
}

/* RFC 9110 section 13: the precondition that the order's present state does not meet. */
static bool crm_precondition_fails(const struct sample_call *call, const struct sample_order *order)
{
    if (call->if_none_match && strcmp(call->if_none_match, "*") == 0 && order->present)
        return true;
    if (!call->if_match)
        return false;
    char etag[32];
    snprintf(etag, sizeof(etag), "\"%lld\"", (long long)order->revision);
    return !order->present || strcmp(call->if_match, etag) != 0;
}

static int crm_execute(const struct sample_call *call, struct sample_order *order)
{
    if (crm_precondition_fails(call, order))
        return 412;
    bool was_present = order->present;
    order->present = true;
    order->revision++;
    return was_present ? 200 : 201;
}

static const struct sample_api crm_api = {
    .program = "crm-api",
    .summary = "The sample CRM API: PUT /v1/customers/{customer}/orders/{order}.",
    .default_listen = "127.0.0.1:8082",
    .address = crm_address,
    .execute = crm_execute,
};

int main(int argc, char **argv)
{
    return sample_main(&crm_api, argc, argv);
}
