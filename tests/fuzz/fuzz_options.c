/* Fuzz: any bytes as a configuration file and as single values; what is accepted must be printable and readable again. */
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/options.h"
#include "common/options_file.h"
#include "common/options_value.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

/* One of each type; the type is the input's first byte. */
static const struct option rows[] = {
    {.name = "string", .type = OPTION_STRING, .dflt = "", .max = 100},
    {.name = "secret", .type = OPTION_SECRET, .dflt = ""},
    {.name = "int", .type = OPTION_INT, .dflt = "0", .min = -100, .max = INT64_MAX},
    {.name = "bool", .type = OPTION_BOOL, .dflt = "no"},
    {.name = "duration", .type = OPTION_DURATION, .dflt = "1s", .max = INT64_MAX},
    {.name = "bytes", .type = OPTION_BYTES, .dflt = "1", .max = INT64_MAX},
    {.name = "ratio", .type = OPTION_RATIO, .dflt = "1"},
    {.name = "enum", .type = OPTION_ENUM, .dflt = "a", .unit = "a|bc|def"},
};

static void read_file_text(char *text)
{
    struct options_file file;
    char *name, *value;
    int more;

    options_file_begin(&file, text);
    while ((more = options_file_next(&file, &name, &value, NULL)) > 0)
        ENSURE(!strchr(name, '\n') && !strchr(value, '\n') && *options_trim(value) == *value);
}

static void read_value(const struct option *o, const char *text)
{
    union {
        char *text;
        int64_t n;
        double ratio;
        bool yes;
        int index;
    } member, again;
    struct buf printed, second;
    memset(&member, 0, sizeof(member));
    memset(&again, 0, sizeof(again));
    buf_init(&printed, 1 << 20);
    buf_init(&second, 1 << 20);

    if (options_value_set(o, text, &member, NULL) == 0 && o->type != OPTION_SECRET) {
        options_value_format(o, &member, &printed);
        int rc = options_value_set(o, buf_str(&printed), &again, NULL);
        ENSURE(rc == 0);
        options_value_format(o, &again, &second);
        ENSURE(strcmp(buf_str(&printed), buf_str(&second)) == 0);
    }
    options_value_free(o, &member);
    options_value_free(o, &again);
    buf_done(&printed);
    buf_done(&second);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    if (size == 0)
        return 0;
    char *text = malloc(size);
    ENSURE(text);
    memcpy(text, data + 1, size - 1);
    text[size - 1] = '\0';
    read_value(&rows[data[0] % ARRAY_LEN(rows)], text);
    read_file_text(text);
    free(text);
    return 0;
}
