/* A batch at a sample API: each item is executed as a request of its own would be, and has its own result. */
#include "tests/rig/sample_batch.h"

#include <jansson.h>
#include <string.h>

/* CloudEvents have an id; what is in a plain array is known by its order and version. */
static int identify(const json_t *item, const json_t *data, char out[SAMPLE_EVENT_ID_BYTES])
{
    const char *id = json_string_value(json_object_get(item, "id"));
    const char *order = json_string_value(json_object_get(data, "order"));
    int n;

    if (item != data)
        n = snprintf(out, SAMPLE_EVENT_ID_BYTES, "%s", id ? id : "");
    else
        n = snprintf(out, SAMPLE_EVENT_ID_BYTES, "%s/%lld", order ? order : "",
                     (long long)json_integer_value(json_object_get(data, "version")));
    return n > 0 && n < SAMPLE_EVENT_ID_BYTES ? 0 : 400;
}

static int serve_one(const json_t *item, sample_item *serve, void *context, const struct sample_call *like)
{
    const json_t *data = json_object_get(item, "specversion") ? json_object_get(item, "data") : item;
    char event_id[SAMPLE_EVENT_ID_BYTES];
    char *body = json_dumps(data, JSON_COMPACT | JSON_ENCODE_ANY);
    int status = 400;

    if (body && identify(item, data, event_id) == 0) {
        struct sample_call call = {
            .method = like->method, .path = like->path, .body = body, .body_len = strlen(body)};
        status = serve(context, &call, event_id);
    }
    free(body);
    return status;
}

void sample_batch(const struct sample_call *call, sample_item *serve, void *context,
                  struct sample_answer *answer)
{
    json_error_t why;
    json_t *items = json_loadb(call->body ? call->body : "", call->body_len, 0, &why);
    size_t i;
    json_t *item;

    answer->status = json_is_array(items) && json_array_size(items) > 0 ? 207 : 400;
    buf_reset(&answer->body);
    if (answer->status == 207) {
        json_array_foreach(items, i, item)(void) buf_printf(
            &answer->body, "%s{\"status\":%d}", i == 0 ? "[" : ",", serve_one(item, serve, context, call));
        (void)buf_puts(&answer->body, "]");
    }
    json_decref(items);
}
