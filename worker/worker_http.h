/* What the end of a transfer means to the engine, apart from the requests themselves so that a test can see the whole table. */
#pragma once

#include <stdbool.h>

#include "worker/engine/verdict.h"

/* curl_code is a CURLcode; sent: at least one byte of the request may have left. */
enum transport http_transport(int curl_code, bool sent);
