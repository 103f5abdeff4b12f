/* Fuzzes the reader of positions in the topic of cursors: what it accepts must write back as the same text's meaning. */
#include <stdint.h>
#include <stdlib.h>

#include "producer/relay/relay_stored.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct relay_stored s = {0}, again = {0};
    struct buf b;

    if (relay_stored_parse((struct slice){(const char *)data, size}, &s, NULL) < 0)
        return 0;
    buf_init(&b, 2 * RELAY_STORED_BYTES_MAX);
    ENSURE(relay_stored_format(&s.position, s.epoch, s.timeline, &b, NULL) == 0);
    ENSURE(relay_stored_parse((struct slice){buf_str(&b), b.len}, &again, NULL) == 0);
    ENSURE(again.epoch == s.epoch && again.timeline == s.timeline);
    ENSURE(again.position.last_id == s.position.last_id && again.position.partial == s.position.partial);
    ENSURE(again.position.txn_index == s.position.txn_index &&
           again.position.half_xid == s.position.half_xid);
    ENSURE(s.position.half_xid == 0 || again.position.half_last_id == s.position.half_last_id);
    ENSURE(snapshot_equal(&again.position.prev, &s.position.prev));
    relay_stored_done(&s);
    relay_stored_done(&again);
    buf_done(&b);
    return 0;
}
