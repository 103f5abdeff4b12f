/* Whatever an API answers to a batch: each event has a status, or the answer is of the whole, or it says nothing and why. */
#include <string.h>

#include "worker/worker_batch.h"

#define MEMBERS 3

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void is_in(struct slice text, struct slice body)
{
    ENSURE(text.data >= body.data && text.data + text.len <= body.data + body.len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct record recs[MEMBERS] = {
        {.event_id = SLICE_LIT("a")}, {.event_id = SLICE_LIT("b")}, {.event_id = SLICE_LIT("c")}};
    struct record *members[MEMBERS] = {&recs[0], NULL, &recs[2]}; /* the second was taken out */
    struct batch_item items[MEMBERS];
    struct err err = {0};
    struct slice body = {(const char *)data, size};
    enum batch_format format = size % 2 ? BATCH_ARRAY : BATCH_CLOUDEVENTS;

    int r = batch_answer(size % 3 ? 207 : 200, body, format, members, MEMBERS, items, &err);
    if (r == -1)
        ENSURE(err.kind == ERR_TEMPORARY && err.message[0]);
    for (int i = 0; r == 1 && i < MEMBERS; i++) {
        ENSURE(items[i].status >= 100 && items[i].status <= 599);
        is_in(items[i].text, body);
    }
    return 0;
}
