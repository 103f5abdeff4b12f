/* Fuzzes the parser of dead-letter headers: input is lines of name=value; whatever it accepts must be whole. */
#include <stdint.h>
#include <string.h>

#include "worker/dlq/dlq_record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct dlq_record rec;
    dlq_record_begin(&rec);
    const char *at = (const char *)data, *end = at + size;
    while (at < end) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        const char *line_end = stop ? stop : end;
        const char *equals = memchr(at, '=', (size_t)(line_end - at));
        struct slice name = {at, (size_t)((equals ? equals : line_end) - at)};
        struct slice value = {equals ? equals + 1 : NULL, equals ? (size_t)(line_end - equals - 1) : 0};
        dlq_record_header(&rec, name, value);
        at = line_end + 1;
    }
    if (dlq_record_end(&rec, "inventory", NULL) < 0)
        return 0;
    ENSURE(rec.id.partition >= 0 && rec.id.offset >= 0 && rec.id.replay_count >= 0);
    ENSURE(rec.id.topic.len > 0 && slice_is(rec.id.destination, "inventory"));
    ENSURE(rec.reason.len > 0 && rec.event_id.len > 0 && rec.http_status <= 999);
    return 0;
}
