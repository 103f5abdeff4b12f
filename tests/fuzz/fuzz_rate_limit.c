/* Fuzz: any lines as RateLimit headers at any time of day; the wait is none, or between now and the far future. */
#include <string.h>

#include "common/clock.h"
#include "worker/engine/quota.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    struct quota q = {0};
    uint32_t seconds;

    if (size < sizeof(seconds))
        return 0;
    memcpy(&seconds, data, sizeof(seconds));
    const char *at = (const char *)data + sizeof(seconds), *end = (const char *)data + size;
    while (at < end) {
        const char *line_end = memchr(at, '\n', (size_t)(end - at));
        line_end = line_end == NULL ? end : line_end + 1;
        quota_header(&q, (struct slice){at, (size_t)(line_end - at)});
        at = line_end;
    }
    int64_t wait = quota_wait(&q, seconds * NS_PER_S);
    ENSURE(wait >= -1 && wait <= INT64_C(110) * 366 * 86400 * NS_PER_S);
    return 0;
}
