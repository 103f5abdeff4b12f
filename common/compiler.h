/* Words for the compiler: must-check results, printf checking, and assertions that stay on. */
#pragma once

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#define NODISCARD __attribute__((warn_unused_result))
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))
#define CLEANUP(fn) __attribute__((cleanup(fn)))
#define UNUSED __attribute__((unused))
#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

/* A bug in Tandem itself: say where and abort. Never used for input, the network or a full disk. */
#define ENSURE(cond)                                                                                         \
    do {                                                                                                     \
        if (!(cond)) {                                                                                       \
            fprintf(stderr, "%s:%d: %s: broken invariant: %s\n", __FILE__, __LINE__, __func__, #cond);       \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)
