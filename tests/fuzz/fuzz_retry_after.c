/* Fuzz: any bytes as a Retry-After header at any time of day; the wait is none, or between now and the far future. */
#include <string.h>

#include "common/clock.h"
#include "worker/engine/backoff.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    uint32_t seconds;

    if (size < sizeof(seconds))
        return 0;
    memcpy(&seconds, data, sizeof(seconds));
    struct slice value = {(const char *)data + sizeof(seconds), size - sizeof(seconds)};
    int64_t wait = backoff_retry_after(value, seconds * NS_PER_S);
    ENSURE(wait >= -1 && wait <= INT64_C(110) * 366 * 86400 * NS_PER_S);
    return 0;
}
