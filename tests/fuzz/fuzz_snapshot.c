/* Fuzzes the snapshot parser: whatever it accepts must write back as the same text's meaning, and compare with itself. */
#include <stdint.h>

#include "producer/relay/core/snapshot.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct snapshot s = {0}, again = {0};
    uint64_t *late;
    struct buf b;

    if (snapshot_parse((const char *)data, size, &s, NULL) < 0)
        return 0;
    buf_init(&b, SNAPSHOT_XIP_MAX * 22 + 64);
    ENSURE(snapshot_format(&s, &b) == 0);
    ENSURE(snapshot_parse(buf_str(&b), b.len, &again, NULL) == 0);
    ENSURE(snapshot_equal(&s, &again));
    late = malloc((s.xip_count + 1) * sizeof(*late));
    ENSURE(late && snapshot_stragglers(&s, &again, late) == 0);
    for (size_t i = 0; i < s.xip_count; i++)
        ENSURE(!snapshot_visible(&s, s.xip[i]));
    free(late);
    buf_done(&b);
    snapshot_done(&s);
    snapshot_done(&again);
    return 0;
}
