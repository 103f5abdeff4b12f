/* Fuzz: any bytes as the state of a parked key; what is read is written so that it reads the same. */
#include <string.h>

#include "worker/engine/parked.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    struct parked_set first = {0}, second = {0};
    struct buf out;

    if (parked_set_read((struct slice){(const char *)data, size}, &first, NULL) == -1) {
        ENSURE(parked_set_is_empty(&first));
        return 0;
    }
    buf_init(&out, PARKED_VALUE_BYTES_MAX);
    int rc = parked_set_write(&first, &out);
    ENSURE(rc == 0);
    rc = parked_set_read((struct slice){buf_str(&out), out.len}, &second, NULL);
    ENSURE(rc == 0 && first.count == second.count && first.overflow == second.overflow);
    for (size_t i = 0; i < first.count; i++)
        ENSURE(slice_equal(first.ids[i], second.ids[i]));
    buf_done(&out);
    parked_set_done(&first);
    parked_set_done(&second);
    return 0;
}
