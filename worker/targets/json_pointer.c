/* Walks into a JSON document along a pointer. */
#include "worker/targets/json_pointer.h"

#include <jansson.h>
#include <stdbool.h>
#include <string.h>

#define STEP_BYTES_MAX 1024

int json_pointer_check(const char *pointer, struct err *err)
{
    if (*pointer && *pointer != '/')
        return err_set(err, ERR_PERMANENT,
                       "\"%.64s\" is not a JSON pointer: it begins with \"/\", like /error/code", pointer);
    for (const char *p = pointer; *p; p++)
        if (*p == '~' && p[1] != '0' && p[1] != '1')
            return err_set(err, ERR_PERMANENT, "\"%.64s\" is not a JSON pointer: a \"~\" is written ~0",
                           pointer);
    return 0;
}

/* RFC 6901 4: no leading zeros, and "-" names what is not there. */
static const json_t *element(const json_t *array, const char *step)
{
    size_t len = strlen(step), index = 0;
    if (len == 0 || len > 9 || (len > 1 && step[0] == '0') || strspn(step, "0123456789") != len)
        return NULL;
    for (size_t i = 0; i < len; i++)
        index = index * 10 + (size_t)(step[i] - '0');
    return json_array_get(array, index);
}

/* One step without its escapes, behind the "/"; returns where the next one begins, NULL: too long. */
static const char *take_step(const char *from, char step[STEP_BYTES_MAX])
{
    size_t len = 0;
    for (; *from && *from != '/'; from++) {
        if (len + 1 == STEP_BYTES_MAX)
            return NULL;
        bool escaped = *from == '~';
        from += escaped;
        step[len++] = !escaped ? *from : *from == '1' ? '/' : '~';
    }
    step[len] = '\0';
    return from;
}

const struct json_t *json_pointer_get(const struct json_t *root, const char *pointer)
{
    char step[STEP_BYTES_MAX];

    while (root && *pointer) {
        pointer = take_step(pointer + 1, step);
        if (!pointer)
            return NULL;
        root = json_is_object(root)  ? json_object_get(root, step)
               : json_is_array(root) ? element(root, step)
                                     : NULL;
    }
    return root;
}
