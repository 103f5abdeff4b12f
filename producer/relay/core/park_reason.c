/* Names of the reasons why a row is parked. */
#include "producer/relay/core/park_reason.h"

#include "common/compiler.h"

static const char *const names[] = {
#define PARK_REASON(id, name, help) [PARK_##id] = (name),
#include "producer/relay/core/park_reason.def"
#undef PARK_REASON
};

const char *park_reason_name(enum park_reason r)
{
    ENSURE((unsigned)r < PARK_REASON_COUNT);
    return names[r];
}
