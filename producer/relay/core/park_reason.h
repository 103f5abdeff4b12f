/* The reasons why a row is parked instead of published, made from the table park_reason.def. */
#pragma once

enum park_reason {
#define PARK_REASON(id, name, help) PARK_##id,
#include "producer/relay/core/park_reason.def"
#undef PARK_REASON
    PARK_REASON_COUNT
};

const char *park_reason_name(enum park_reason r); /* as stored in tandem.parked.reason */
