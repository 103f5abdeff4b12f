/* Whatever a token server answers: a token that a header can carry and a life within bounds, or an error that quotes nothing. */
#include <string.h>

#include "common/clock.h"
#include "worker/auth_oauth.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf value;
    struct err err = {0};
    int64_t life_ns = -1;
    int status = size && data[0] == 'E' ? 400 : 200;

    buf_init(&value, AUTH_VALUE_BYTES_MAX);
    struct slice body = {(const char *)data, size};
    if (auth_oauth_answer(status, body, &value, &life_ns, &err) == 0) {
        ENSURE(status == 200 && strncmp(value.data, "Bearer ", 7) == 0 && value.len > 7);
        ENSURE(life_ns >= NS_PER_S && life_ns <= 7 * 86400 * NS_PER_S);
        for (size_t i = 7; i < value.len; i++)
            ENSURE(value.data[i] > 0x20 && value.data[i] < 0x7F);
    } else {
        ENSURE(err.kind == ERR_TEMPORARY && life_ns == -1 && value.len == 0);
        for (const char *c = err.message; *c; c++)
            ENSURE(*c >= 0x20 && *c < 0x7F);
    }
    buf_done(&value);
    return 0;
}
