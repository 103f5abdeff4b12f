/* Fuzz: any bytes as the headers of a record; what passes the check is safe as HTTP header values. */
#include <string.h>

#include "common/event.h"
#include "common/utf8.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

/* The next length-prefixed piece of the input; a length of 255 is a null value. */
static struct slice piece(const char **at, const char *end)
{
    if (*at == end)
        return (struct slice){NULL, 0};
    size_t len = (unsigned char)*(*at)++;
    if (len == 255)
        return (struct slice){NULL, 0};
    if (len > (size_t)(end - *at))
        len = (size_t)(end - *at);
    const struct slice s = {*at, len};
    *at += len;
    return s;
}

/* So that the input need not spell the names. */
static struct slice name_of(struct slice s)
{
    static const char *const known[] = {"ce_specversion", "ce_id",   "ce_source",
                                        "ce_type",        "ce_time", "content-type"};
    if (s.len == 1 && (unsigned char)*s.data < ARRAY_LEN(known))
        return (struct slice){known[(unsigned char)*s.data], strlen(known[(unsigned char)*s.data])};
    return s.data ? s : SLICE_LIT("");
}

static void assert_safe(struct slice s)
{
    ENSURE(s.len <= EVENT_ATTRIBUTE_BYTES_MAX && (s.len == 0 || utf8_valid(s.data, s.len)));
    for (size_t i = 0; i < s.len; i++)
        ENSURE(s.data[i] != '\r' && s.data[i] != '\n' && s.data[i] != '\0');
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    static struct event ev;
    const char *at = (const char *)data, *end = at + size;
    struct err err = {0};

    event_begin(&ev, piece(&at, end), piece(&at, end));
    while (at < end) {
        struct slice name = name_of(piece(&at, end));
        if (event_add_header(&ev, name, piece(&at, end), &err) < 0)
            return 0;
    }
    if (event_check(&ev, &err) < 0) {
        ENSURE(err.kind == ERR_PERMANENT);
        return 0;
    }
    ENSURE(ev.id.len && ev.source.len && ev.type.len);
    assert_safe(ev.id);
    assert_safe(ev.source);
    assert_safe(ev.type);
    assert_safe(ev.time);
    assert_safe(ev.content_type);
    return 0;
}
