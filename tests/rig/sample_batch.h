/* POST of an array to a sample API: the items, of a JSON array or a CloudEvents batch, one by one. */
#pragma once

#include "tests/rig/sample_api.h"

/* Serve one item; call has its body, method and path; returns its status. */
typedef int sample_item(void *context, struct sample_call *call, const char *event_id);
/* Fills answer with a 207 and an array of results, or with a 400. */
void sample_batch(const struct sample_call *call, sample_item *serve, void *context,
                  struct sample_answer *answer);
