/* Any bytes: our scanner and jansson agree on what is JSON, but for numbers that do not fit, NULs in names and deep nesting. */
#include <jansson.h>
#include <string.h>

#include "common/buf.h"
#include "worker/json_scan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool nested_deeply(const uint8_t *data, size_t size)
{
    size_t open = 0;
    for (size_t i = 0; i < size; i++)
        open += data[i] == '[' || data[i] == '{';
    return open >= JSON_DEPTH_MAX;
}

/* What is written as a string is a string with the same text. */
static void string_comes_back(struct slice text)
{
    struct buf out;
    const char *why;
    size_t at;
    buf_init(&out, 6 * text.len + 2);
    ENSURE(json_scan_quote(&out, text) == 0);
    ENSURE(json_scan_valid((struct slice){out.data, out.len}, &why, &at));
    buf_done(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice text = {(const char *)data, size};
    json_error_t why;
    const char *our_why = NULL;
    size_t at = 0;
    bool ours = json_scan_valid(text, &our_why, &at);
    json_t *tree = json_loadb(text.data, text.len, JSON_DECODE_ANY | JSON_ALLOW_NUL, &why);
    enum json_error_code code = tree ? json_error_unknown : json_error_code(&why);
    bool limit = code == json_error_numeric_overflow || code == json_error_null_byte_in_key ||
                 code == json_error_stack_overflow;

    ENSURE(ours || (our_why && at <= size));
    if (ours)
        ENSURE(tree || limit);
    else if (!nested_deeply(data, size) && !memchr(data, 0, size)) /* jansson takes a NUL for the end */
        ENSURE(!tree);
    json_decref(tree);
    string_comes_back(text);
    return 0;
}
