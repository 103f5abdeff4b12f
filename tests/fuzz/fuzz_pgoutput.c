/* Fuzzes the decoder of the replication stream: input is messages, each behind its length; whatever it accepts must be whole. */
#include <stdint.h>
#include <string.h>

#include "producer/relay/relay_headers.h"
#include "producer/relay/relay_pgoutput.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Every byte that a row shows must be one that may be read. */
static unsigned touch(struct slice s)
{
    unsigned sum = 0;

    for (size_t i = 0; i < s.len; i++)
        sum += (unsigned char)s.data[i];
    return sum;
}

static void check_headers(struct slice json)
{
    struct buf packed;
    struct slice rest, name, value;

    buf_init(&packed, 1 << 20);
    if (relay_headers_pack(json, &packed) == 0) {
        rest = (struct slice){packed.data, packed.len};
        while (relay_headers_next(&rest, &name, &value)) {
            ENSURE(name.data);
            touch(name);
            touch(value);
        }
        ENSURE(rest.len == 0);
    }
    buf_done(&packed);
}

static void check_row(const struct pgoutput_row *row)
{
    const struct slice all[] = {row->event_id,     row->topic,   row->key,         row->type,   row->source,
                                row->content_type, row->payload, row->traceparent, row->headers};

    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        touch(all[i]);
    if (row->unreadable) {
        ENSURE(row->payload.data && !row->event_id.data && !row->topic.data && !row->key.data);
        return;
    }
    ENSURE(row->event_id.len == 16 && row->topic.data && row->type.data);
    if (row->headers.data)
        check_headers(row->headers);
}

/* Bit 0 of the first byte: what is emitted counts; then messages: two bytes of length each. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pgoutput d = {.emitted = size > 0 && (data[0] & 1)};
    size_t at = 1;

    while (at + 2 <= size) {
        size_t len = (size_t)data[at] << 8 | data[at + 1];
        struct pgoutput_event ev;
        char *message;

        at += 2;
        len = len < size - at ? len : size - at;
        message = malloc(len ? len : 1); /* of its own, so that a byte too far is noticed */
        ENSURE(message);
        memcpy(message, data + at, len);
        at += len;
        if (pgoutput_read(&d, message, len, &ev, NULL) == 0 && ev.kind == PGOUTPUT_ROW)
            check_row(&ev.row);
        free(message);
    }
    return 0;
}
