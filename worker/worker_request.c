/* Writes the header lines of one attempt; no byte of an event can end a line. */
#include "worker/worker_request.h"

#include <string.h>

void request_lines_init(struct request_lines *lines)
{
    lines->count = 0;
    buf_init(&lines->text, REQUEST_LINES_BYTES_MAX);
}

void request_lines_done(struct request_lines *lines)
{
    buf_done(&lines->text);
}

const char *request_line(const struct request_lines *lines, size_t i)
{
    ENSURE(i < lines->count);
    return lines->text.data + lines->start[i];
}

/* What does not fit sets text.failed, which is looked at once, at the end. */
static void line_begin(struct request_lines *lines, const char *name)
{
    ENSURE(lines->count < REQUEST_LINES_MAX);
    lines->start[lines->count++] = lines->text.len;
    (void)buf_puts(&lines->text, name);
    (void)buf_puts(&lines->text, ": ");
}

static void line_end(struct request_lines *lines)
{
    (void)buf_append(&lines->text, "", 1);
}

static void line_add(struct request_lines *lines, const char *name, const char *value)
{
    line_begin(lines, name);
    (void)buf_puts(&lines->text, value);
    line_end(lines);
}

/* CloudEvents 1.0 HTTP binding 3.1.3.2: space, quote, percent and everything outside printable ASCII is percent-encoded. */
static void append_encoded(struct buf *text, struct slice value)
{
    static const char hex[] = "0123456789ABCDEF";
    for (size_t i = 0; i < value.len; i++) {
        unsigned char c = (unsigned char)value.data[i];
        bool plain = c > 0x20 && c < 0x7F && c != '"' && c != '%';
        char coded[3] = {'%', hex[c >> 4], hex[c & 15]};
        if (plain)
            (void)buf_append(text, &value.data[i], 1);
        else
            (void)buf_append(text, coded, sizeof coded);
    }
}

static void line_add_encoded(struct request_lines *lines, const char *name, struct slice value)
{
    if (!value.data)
        return;
    line_begin(lines, name);
    append_encoded(&lines->text, value);
    line_end(lines);
}

static void add_content_type(struct request_lines *lines, const struct request_facts *f)
{
    struct slice type = f->ev->content_type;
    if (f->rec->request.content_type)
        type = (struct slice){f->rec->request.content_type, strlen(f->rec->request.content_type)};
    if (!f->rec->request.body.data || type.len == 0) {
        ENSURE(lines->count < REQUEST_LINES_MAX);
        /* A name without a value takes out the form type that the HTTP library would add by itself. */
        lines->start[lines->count++] = lines->text.len;
        (void)buf_append(&lines->text, "Content-Type:", sizeof "Content-Type:");
        return;
    }
    line_begin(lines, "Content-Type");
    (void)buf_append(&lines->text, type.data, type.len);
    line_end(lines);
}

static void add_target_lines(struct request_lines *lines, const struct buf *own)
{
    for (size_t at = 0; at < own->len; at += strlen(own->data + at) + 1) {
        ENSURE(lines->count < REQUEST_LINES_MAX); /* request_header counts them */
        lines->start[lines->count++] = lines->text.len;
        (void)buf_append(&lines->text, own->data + at, strlen(own->data + at) + 1);
    }
}

/* The id that is signed is the one that is sent. */
static void add_signature(struct request_lines *lines, const struct request_facts *f)
{
    char signature[AUTH_WEBHOOK_SIGNATURE_BYTES];
    struct buf id;

    buf_init(&id, REQUEST_LINES_BYTES_MAX);
    append_encoded(&id, f->batch ? f->batch->key : f->rec->event_id);
    auth_webhook_sign(&f->auth->webhook, buf_str(&id), f->wall_s,
                      f->batch ? f->batch->body : f->rec->request.body, signature);
    line_add(lines, "webhook-id", buf_str(&id));
    line_begin(lines, "webhook-timestamp");
    (void)buf_printf(&lines->text, "%lld", (long long)f->wall_s);
    line_end(lines);
    line_add(lines, "webhook-signature", signature);
    buf_done(&id);
}

/* What says which event it is, or which ones: those of a batch say it in its body. */
static void add_event_lines(struct request_lines *lines, const struct request_facts *f)
{
    if (f->batch) {
        line_add_encoded(lines, "Idempotency-Key", f->batch->key);
        line_add(lines, "Content-Type", f->batch->content_type);
        return;
    }
    line_add_encoded(lines, "Idempotency-Key", f->rec->event_id);
    line_add_encoded(lines, "ce-specversion", event_header(f->ev, "ce_specversion"));
    line_add_encoded(lines, "ce-id", f->ev->id);
    line_add_encoded(lines, "ce-source", f->ev->source);
    line_add_encoded(lines, "ce-type", f->ev->type);
    line_add_encoded(lines, "ce-time", f->ev->time);
    line_add_encoded(lines, "ce-subject", f->ev->subject);
    add_content_type(lines, f);
}

int request_lines_build(struct request_lines *lines, const struct request_facts *f, struct err *err)
{
    char traceparent[TRACE_PARENT_BYTES];

    buf_reset(&lines->text);
    lines->count = 0;
    add_event_lines(lines, f);
    line_add(lines, "traceparent", trace_format(f->span, traceparent));
    line_add(lines, "User-Agent", f->user_agent);
    if (f->auth && f->auth->header)
        line_add(lines, f->auth->header, buf_str(&f->auth->value));
    if (auth_signs(f->auth))
        add_signature(lines, f);
    add_target_lines(lines, &f->rec->request.headers);
    if (lines->text.failed)
        return err_set(err, ERR_PERMANENT, "the request's headers are larger than %d bytes",
                       REQUEST_LINES_BYTES_MAX);
    return 0;
}
