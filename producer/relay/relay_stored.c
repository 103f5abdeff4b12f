/* Writes and reads the text of a position in the topic of cursors: every line must be there (but for save, and what is half done), once, in this order. */
#include "producer/relay/relay_stored.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_LINE "tandem-cursor 1"
#define LAST_LINE "end"

void relay_stored_done(struct relay_stored *s)
{
    if (s)
        position_done(&s->position);
}

/* ---- writing ---- */

/* NULL, and one that was never taken: nobody has finished. */
static void put_snapshot(struct buf *out, const char *name, const struct snapshot *s)
{
    static const struct snapshot nobody = {.xmin = 1, .xmax = 1};

    buf_printf(out, "%s=", name);
    snapshot_format(s && s->xmin > 0 ? s : &nobody, out);
    buf_puts(out, "\n");
}

static void put_number(struct buf *out, const char *name, int64_t value)
{
    buf_printf(out, "%s=%" PRId64 "\n", name, value);
}

/* Ids with commas between them; 0: none. */
static void put_unparked(struct buf *out, const struct unparked *u)
{
    buf_puts(out, u->count == 0 ? "unparked=0" : "unparked=");
    for (int i = 0; i < u->count; i++)
        buf_printf(out, "%s%" PRId64, i > 0 ? "," : "", u->ids[i]);
    buf_puts(out, "\n");
}

int relay_stored_format(const struct position *p, int64_t epoch, uint32_t timeline, struct buf *out,
                        struct err *err)
{
    buf_puts(out, FIRST_LINE "\n");
    put_number(out, "epoch", epoch);
    put_number(out, "timeline", timeline);
    put_number(out, "save", p->save);
    put_snapshot(out, "prev", &p->prev);
    put_number(out, "prev_floor", p->prev_floor);
    put_number(out, "partial", p->partial);
    put_snapshot(out, "cur", p->partial ? &p->cur.snapshot : NULL);
    put_number(out, "cur_floor", p->partial ? p->cur.floor : 0);
    put_number(out, "cur_ceiling", p->partial ? p->cur.ceiling : 0);
    put_number(out, "last_id", p->last_id);
    put_number(out, "lsn", (int64_t)p->lsn);
    put_number(out, "txn_lsn", (int64_t)p->txn_lsn);
    put_number(out, "txn_index", p->txn_index);
    if (p->half_xid != 0) {
        put_number(out, "half_xid", (int64_t)p->half_xid);
        put_number(out, "half_last_id", p->half_last_id);
    }
    put_unparked(out, &p->unparked);
    buf_puts(out, LAST_LINE "\n");
    if (out->failed)
        return err_set(err, ERR_TEMPORARY, "the position does not fit a record of %zu bytes", out->limit);
    return 0;
}

/* ---- reading ---- */

struct reader {
    struct slice rest;
    struct err *err;
};

/* The next line without its newline; -1: there is none. */
static int take_line(struct reader *r, struct slice *ret_line)
{
    const char *newline = r->rest.len > 0 ? memchr(r->rest.data, '\n', r->rest.len) : NULL;

    if (!newline)
        return err_set(r->err, ERR_PERMANENT, "it ends within a line");
    *ret_line = (struct slice){r->rest.data, (size_t)(newline - r->rest.data)};
    r->rest.data = newline + 1;
    r->rest.len -= ret_line->len + 1;
    return 0;
}

static int take_word(struct reader *r, const char *word)
{
    struct slice line;

    if (take_line(r, &line) < 0)
        return -1;
    if (slice_is(line, word))
        return 0;
    return err_set(r->err, ERR_PERMANENT, "there is \"%.*s\" in place of \"%s\"",
                   (int)(line.len < 40 ? line.len : 40), line.data, word);
}

static int take_value(struct reader *r, const char *name, struct slice *ret_value)
{
    size_t len = strlen(name);
    struct slice line;

    if (take_line(r, &line) < 0)
        return -1;
    if (line.len <= len || memcmp(line.data, name, len) != 0 || line.data[len] != '=')
        return err_set(r->err, ERR_PERMANENT, "there is \"%.*s\" in place of \"%s=\"",
                       (int)(line.len < 40 ? line.len : 40), line.data, name);
    *ret_value = (struct slice){line.data + len + 1, line.len - len - 1};
    return 0;
}

static int read_number(struct reader *r, const char *name, struct slice value, int64_t max,
                       int64_t *ret_number)
{
    char text[24], *end;
    long long number;

    if (value.len == 0 || value.len >= sizeof(text) || value.data[0] < '0' || value.data[0] > '9')
        return err_set(r->err, ERR_PERMANENT, "%s is no number", name);
    memcpy(text, value.data, value.len);
    text[value.len] = '\0';
    errno = 0;
    number = strtoll(text, &end, 10);
    if (errno || *end || number > max)
        return err_set(r->err, ERR_PERMANENT, "%s is \"%s\"", name, text);
    *ret_number = number;
    return 0;
}

static int take_number(struct reader *r, const char *name, int64_t max, int64_t *ret_number)
{
    struct slice value;

    return take_value(r, name, &value) < 0 ? -1 : read_number(r, name, value, max, ret_number);
}

static int take_unparked(struct reader *r, struct unparked *ret_u)
{
    struct unparked u = {0};
    struct slice rest;
    bool more = true;

    if (take_value(r, "unparked", &rest) < 0)
        return -1;
    while (more) {
        const char *comma = rest.len > 0 ? memchr(rest.data, ',', rest.len) : NULL;
        size_t len = comma ? (size_t)(comma - rest.data) : rest.len;

        if (u.count == UNPARKED_MAX)
            return err_set(r->err, ERR_PERMANENT, "unparked has more than %d numbers", UNPARKED_MAX);
        if (read_number(r, "unparked", (struct slice){rest.data, len}, INT64_MAX, &u.ids[u.count++]) < 0)
            return -1;
        more = comma != NULL;
        if (more)
            rest = (struct slice){comma + 1, rest.len - len - 1};
    }
    if (u.count == 1 && u.ids[0] == 0)
        u.count = 0;
    *ret_u = u;
    return 0;
}

static int take_snapshot(struct reader *r, const char *name, struct snapshot *ret_s)
{
    struct slice value;

    return take_value(r, name, &value) < 0 ? -1 : snapshot_parse(value.data, value.len, ret_s, r->err);
}

static bool comes(const struct reader *r, const char *start)
{
    size_t len = strlen(start);

    return r->rest.len >= len && memcmp(r->rest.data, start, len) == 0;
}

/* Records of before have none. */
static int take_save(struct reader *r, struct position *p)
{
    return comes(r, "save=") ? take_number(r, "save", INT64_MAX, &p->save) : 0;
}

static int take_batch(struct reader *r, struct position *p)
{
    int64_t partial = 0;

    if (take_snapshot(r, "prev", &p->prev) < 0 ||
        take_number(r, "prev_floor", INT64_MAX, &p->prev_floor) < 0 ||
        take_number(r, "partial", 1, &partial) < 0 || take_snapshot(r, "cur", &p->cur.snapshot) < 0 ||
        take_number(r, "cur_floor", INT64_MAX, &p->cur.floor) < 0 ||
        take_number(r, "cur_ceiling", INT64_MAX, &p->cur.ceiling) < 0 ||
        take_number(r, "last_id", INT64_MAX, &p->last_id) < 0)
        return -1;
    p->partial = partial != 0;
    if (!p->partial) {
        snapshot_done(&p->cur.snapshot);
        p->cur = (struct look){0};
    }
    return 0;
}

/* Only where it is not the batch that is stored in part. */
static int take_half(struct reader *r, struct position *p)
{
    int64_t xid = 0;

    if (!comes(r, "half_xid="))
        return 0;
    if (take_number(r, "half_xid", INT64_MAX, &xid) < 0 ||
        take_number(r, "half_last_id", INT64_MAX, &p->half_last_id) < 0)
        return -1;
    p->half_xid = (uint64_t)xid;
    return 0;
}

static int take_stream(struct reader *r, struct position *p)
{
    int64_t lsn = 0, txn_lsn = 0;

    if (take_number(r, "lsn", INT64_MAX, &lsn) < 0 || take_number(r, "txn_lsn", INT64_MAX, &txn_lsn) < 0 ||
        take_number(r, "txn_index", INT64_MAX, &p->txn_index) < 0 || take_half(r, p) < 0 ||
        take_unparked(r, &p->unparked) < 0)
        return -1;
    p->lsn = (uint64_t)lsn;
    p->txn_lsn = (uint64_t)txn_lsn;
    return 0;
}

static int take_all(struct reader *r, struct relay_stored *s)
{
    int64_t timeline = 0;

    if (take_word(r, FIRST_LINE) < 0 || take_number(r, "epoch", INT64_MAX, &s->epoch) < 0 ||
        take_number(r, "timeline", UINT32_MAX, &timeline) < 0 || take_save(r, &s->position) < 0 ||
        take_batch(r, &s->position) < 0 || take_stream(r, &s->position) < 0 || take_word(r, LAST_LINE) < 0)
        return -1;
    s->timeline = (uint32_t)timeline;
    if (r->rest.len > 0)
        return err_set(r->err, ERR_PERMANENT, "something follows its end");
    return 0;
}

int relay_stored_parse(struct slice text, struct relay_stored *ret_s, struct err *err)
{
    struct relay_stored s = {0};
    struct reader r = {text, err};

    if (take_all(&r, &s) < 0) {
        relay_stored_done(&s);
        return -1;
    }
    *ret_s = s;
    return 0;
}
