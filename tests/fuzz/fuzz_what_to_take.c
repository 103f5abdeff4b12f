/* Fuzz: any text as the options start and types; a place that is read lies in time, and a list that is read takes what it names. */
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "worker/worker_start.h"
#include "worker/worker_types.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    struct start start = {0};
    char *text = strndup((const char *)data, size);

    ENSURE(text);
    if (start_parse(text, INT64_C(1767323045) * NS_PER_S, &start, NULL) == 0 && start.kind == START_TIME)
        ENSURE(start.time_ms >= 0 && start.time_ms < INT64_C(8100) * 366 * 86400 * 1000);
    if (types_check(text, NULL) == 0 && !strpbrk(text, " ,*"))
        ENSURE(types_take(text, (struct slice){text, strlen(text)}));
    if (types_check(text, NULL) == 0)
        (void)types_take(text, (struct slice){"order.placed", 12});
    free(text);
    return 0;
}
