/* Fuzz: any bytes as a traceparent; what is read is written so that it is read again as the same. */
#include <string.h>

#include "common/trace.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    struct trace first, second;
    char out[TRACE_PARENT_BYTES];

    if (trace_parse((struct slice){(const char *)data, size}, &first) < 0)
        return 0;
    trace_format(&first, out);
    ENSURE(strlen(out) == TRACE_PARENT_BYTES - 1);
    int rc = trace_parse((struct slice){out, strlen(out)}, &second);
    ENSURE(rc == 0 && memcmp(&first, &second, sizeof(first)) == 0);
    ENSURE(memcmp(out + 3, data + 3, 50) == 0);
    return 0;
}
