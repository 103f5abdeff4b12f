/* Reads a Kafka record's headers as a CloudEvent, and says whether it is one that can be delivered. */
#include "common/event.h"

#include <string.h>

#include "common/utf8.h"

bool slice_is(struct slice s, const char *text)
{
    return s.data && s.len == strlen(text) && memcmp(s.data, text, s.len) == 0;
}

bool slice_equal(struct slice a, struct slice b)
{
    if (!a.data || !b.data)
        return !a.data && !b.data;
    return a.len == b.len && memcmp(a.data, b.data, a.len) == 0;
}

void event_begin(struct event *ev, struct slice key, struct slice value)
{
    const struct slice none = {NULL, 0};

    /* Field by field: the table of headers is 8 KiB, and clearing it would cost more than reading the record.
     */
    ev->key = key;
    ev->value = value;
    ev->id = ev->source = ev->type = ev->time = ev->subject = ev->content_type = ev->traceparent = none;
    ev->header_count = 0;
    ev->header_bytes = 0;
}

static struct slice *event_attribute(struct event *ev, struct slice name)
{
    static const struct {
        const char *name;
        size_t offset;
    } attributes[] = {
        {"ce_id", offsetof(struct event, id)},
        {"ce_source", offsetof(struct event, source)},
        {"ce_type", offsetof(struct event, type)},
        {"ce_time", offsetof(struct event, time)},
        {"ce_subject", offsetof(struct event, subject)},
        {"content-type", offsetof(struct event, content_type)},
        {"traceparent", offsetof(struct event, traceparent)},
    };
    for (size_t i = 0; i < ARRAY_LEN(attributes); i++)
        if (slice_is(name, attributes[i].name))
            return (struct slice *)(void *)((char *)ev + attributes[i].offset);
    return NULL;
}

int event_add_header(struct event *ev, struct slice name, struct slice value, struct err *err)
{
    if (ev->header_count == EVENT_HEADERS_MAX)
        return err_set(err, ERR_PERMANENT, "too-many-headers: more than %d", EVENT_HEADERS_MAX);
    size_t room = EVENT_HEADER_BYTES_MAX - ev->header_bytes;
    if (name.len > room || value.len > room - name.len)
        return err_set(err, ERR_PERMANENT, "headers-too-large: more than %d bytes", EVENT_HEADER_BYTES_MAX);

    ev->headers[ev->header_count++] = (struct event_header){name, value};
    ev->header_bytes += name.len + value.len;
    struct slice *attribute = event_attribute(ev, name);
    if (attribute)
        *attribute = value;
    return 0;
}

struct slice event_header(const struct event *ev, const char *name)
{
    for (size_t i = ev->header_count; i > 0; i--)
        if (slice_is(ev->headers[i - 1].name, name))
            return ev->headers[i - 1].value;
    return (struct slice){NULL, 0};
}

static bool has_control(struct slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.data[i];
        if (c < 0x20 || c == 0x7F)
            return true;
    }
    return false;
}

static int check_text(const char *name, struct slice s, struct err *err)
{
    if (s.len > EVENT_ATTRIBUTE_BYTES_MAX)
        return err_set(err, ERR_PERMANENT, "%s is longer than %d bytes", name, EVENT_ATTRIBUTE_BYTES_MAX);
    if (has_control(s))
        return err_set(err, ERR_PERMANENT, "%s carries control characters", name);
    if (s.len && !utf8_valid(s.data, s.len))
        return err_set(err, ERR_PERMANENT, "%s is not UTF-8", name);
    return 0;
}

static int check_required(const char *name, struct slice s, struct err *err)
{
    if (!s.data)
        return err_set(err, ERR_PERMANENT, "not a CloudEvent: header %s is missing", name);
    if (s.len == 0)
        return err_set(err, ERR_PERMANENT, "not a CloudEvent: header %s is empty", name);
    return check_text(name, s, err);
}

/* "1." and digits: every 1.x is read alike. */
static bool is_version_1(struct slice s)
{
    if (s.len < 3 || memcmp(s.data, "1.", 2) != 0)
        return false;
    for (size_t i = 2; i < s.len; i++)
        if (s.data[i] < '0' || s.data[i] > '9')
            return false;
    return true;
}

int event_check(const struct event *ev, struct err *err)
{
    struct slice version = event_header(ev, "ce_specversion");

    if (check_required("ce_specversion", version, err) < 0)
        return -1;
    if (!is_version_1(version))
        return err_set(err, ERR_PERMANENT, "ce_specversion \"%.*s\" is not 1.x",
                       (int)(version.len > 32 ? 32 : version.len), version.data);
    if (check_required("ce_id", ev->id, err) < 0 || check_required("ce_source", ev->source, err) < 0 ||
        check_required("ce_type", ev->type, err) < 0)
        return -1;
    if (check_text("ce_time", ev->time, err) < 0)
        return -1;
    return check_text("content-type", ev->content_type, err);
}
