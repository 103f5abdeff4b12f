/* Which types of events a destination takes: a list in one line, like "order.placed,invoice.*". */
#pragma once

#include "common/err.h"
#include "common/event.h"

/* -1 PERMANENT: an empty word, a control character, or a "*" that is not the last character of its word. */
NODISCARD int types_check(const char *list, struct err *err);
/* list has passed types_check; spaces around a word do not count. An empty list takes all. */
bool types_take(const char *list, struct slice type);
