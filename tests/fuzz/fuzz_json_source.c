/* Any bytes: what is JSON for jansson is so for us, and what we write of it is the same, with numbers of which jansson can hold none. */
#include <jansson.h>
#include <string.h>

#include "worker/json_scan.h"
#include "worker/targets/json_source.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FLAGS (JSON_DECODE_ANY | JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES)

static bool is_too_large(const json_error_t *why)
{
    return json_error_code(why) == json_error_numeric_overflow;
}

static bool is_one_number(struct slice text)
{
    const char *why;
    size_t at;
    return text.data && json_scan_valid(text, &why, &at) && !strchr("\"{[tfn", *text.data);
}

static void check_scalars(const struct json_source *s, json_t *value)
{
    const char *name;
    json_t *inner;
    size_t i;

    if (json_is_number(value))
        ENSURE(is_one_number(json_source_scalar(s, value)));
    json_array_foreach(value, i, inner)
    {
        check_scalars(s, inner);
    }
    json_object_foreach(value, name, inner)
    {
        check_scalars(s, inner);
    }
}

/* Written and read again it is the same, in our eyes and, where it can hold the numbers, in jansson's. */
static void check_written(const struct json_source *s, size_t size, json_t *theirs)
{
    struct json_source again;
    struct buf first, second;
    json_error_t why;

    buf_init(&first, size * 8 + 64);
    buf_init(&second, size * 8 + 64);
    ENSURE(json_source_write(s, s->root, &first) == 0);
    ENSURE(json_source_read(&again, (struct slice){buf_str(&first), first.len}, FLAGS, NULL) == 0);
    ENSURE(json_source_write(&again, again.root, &second) == 0);
    ENSURE(first.len == second.len && memcmp(first.data, second.data, first.len) == 0);
    json_t *tree = json_loadb(first.data, first.len, FLAGS, &why);
    ENSURE(theirs ? tree && json_equal(theirs, tree) : !tree && is_too_large(&why));
    json_decref(tree);
    json_source_done(&again);
    buf_done(&first);
    buf_done(&second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice text = {(const char *)data, size};
    struct json_source ours;
    struct err err = {0};
    json_error_t why;
    json_t *theirs = json_loadb(text.data ? text.data : "", text.len, FLAGS, &why);
    int r = json_source_read(&ours, text, FLAGS, &err);

    ENSURE(theirs ? r == 0 : r < 0 || is_too_large(&why));
    ENSURE(r == 0 ? ours.root != NULL : !ours.root && err.kind == ERR_PERMANENT && err.message[0]);
    if (r == 0) {
        check_scalars(&ours, ours.root);
        check_written(&ours, size, theirs);
    }
    json_source_done(&ours);
    json_decref(theirs);
    return 0;
}
