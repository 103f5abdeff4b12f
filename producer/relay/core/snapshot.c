/* Reads, writes and compares Postgres snapshots: who had finished when. */
#include "producer/relay/core/snapshot.h"

#include <inttypes.h>
#include <string.h>

/* One decimal number at *pos; -1 when there is none or it does not fit. No leading zeros question: Postgres
 * writes none. */
static int read_xid(const char *text, size_t len, size_t *pos, uint64_t *ret_xid)
{
    uint64_t value = 0;
    size_t start = *pos;

    while (*pos < len && text[*pos] >= '0' && text[*pos] <= '9') {
        uint64_t digit = (uint64_t)(text[*pos] - '0');

        if (value > (UINT64_MAX - digit) / 10)
            return -1;
        value = value * 10 + digit;
        (*pos)++;
    }
    if (*pos == start)
        return -1;
    *ret_xid = value;
    return 0;
}

static bool read_colon(const char *text, size_t len, size_t *pos)
{
    if (*pos >= len || text[*pos] != ':')
        return false;
    (*pos)++;
    return true;
}

static size_t count_list(const char *text, size_t len, size_t pos)
{
    size_t count = pos < len ? 1 : 0;

    for (; pos < len; pos++)
        if (text[pos] == ',')
            count++;
    return count;
}

/* The list must rise strictly inside [xmin, xmax): anything else is not a snapshot, and bsearch relies on it.
 */
static int read_list(const char *text, size_t len, size_t pos, struct snapshot *s)
{
    for (size_t i = 0; i < s->xip_count; i++) {
        if (i > 0 && (pos >= len || text[pos++] != ','))
            return -1;
        if (read_xid(text, len, &pos, &s->xip[i]) < 0)
            return -1;
        if (s->xip[i] < s->xmin || s->xip[i] >= s->xmax || (i > 0 && s->xip[i] <= s->xip[i - 1]))
            return -1;
    }
    return pos == len ? 0 : -1;
}

static int malformed(const char *text, size_t len, struct err *err)
{
    return err_set(err, ERR_PERMANENT, "not a snapshot: \"%.*s\"", (int)(len < 80 ? len : 80), text);
}

int snapshot_parse(const char *text, size_t len, struct snapshot *ret_s, struct err *err)
{
    struct snapshot s = {0};
    size_t pos = 0;

    if (read_xid(text, len, &pos, &s.xmin) < 0 || !read_colon(text, len, &pos))
        return malformed(text, len, err);
    if (read_xid(text, len, &pos, &s.xmax) < 0 || !read_colon(text, len, &pos))
        return malformed(text, len, err);
    if (s.xmin == 0 || s.xmin > s.xmax)
        return malformed(text, len, err);
    s.xip_count = count_list(text, len, pos);
    if (s.xip_count > SNAPSHOT_XIP_MAX)
        return err_set(err, ERR_PERMANENT, "snapshot with %zu open transactions, more than %d", s.xip_count,
                       SNAPSHOT_XIP_MAX);
    if (s.xip_count > 0) {
        s.xip = malloc(s.xip_count * sizeof(*s.xip));
        if (!s.xip)
            return err_set(err, ERR_TEMPORARY, "no memory for a snapshot of %zu transactions", s.xip_count);
    }
    if (read_list(text, len, pos, &s) < 0) {
        snapshot_done(&s);
        return malformed(text, len, err);
    }
    *ret_s = s;
    return 0;
}

int snapshot_format(const struct snapshot *s, struct buf *out)
{
    if (buf_printf(out, "%" PRIu64 ":%" PRIu64 ":", s->xmin, s->xmax) < 0)
        return -1;
    for (size_t i = 0; i < s->xip_count; i++)
        if (buf_printf(out, i ? ",%" PRIu64 : "%" PRIu64, s->xip[i]) < 0)
            return -1;
    return 0;
}

int snapshot_copy(const struct snapshot *s, struct snapshot *ret_s, struct err *err)
{
    struct snapshot copy = *s;

    copy.xip = NULL;
    if (s->xip_count > 0) {
        copy.xip = malloc(s->xip_count * sizeof(*copy.xip));
        if (!copy.xip)
            return err_set(err, ERR_TEMPORARY, "no memory for a snapshot of %zu transactions", s->xip_count);
        memcpy(copy.xip, s->xip, s->xip_count * sizeof(*copy.xip));
    }
    *ret_s = copy;
    return 0;
}

struct snapshot snapshot_take(struct snapshot *s)
{
    struct snapshot taken = *s;

    *s = (struct snapshot){0};
    return taken;
}

void snapshot_done(struct snapshot *s)
{
    if (!s)
        return;
    free(s->xip);
    *s = (struct snapshot){0};
}

static bool in_progress(const struct snapshot *s, uint64_t xid)
{
    size_t low = 0, high = s->xip_count;

    while (low < high) {
        size_t mid = low + (high - low) / 2;

        if (s->xip[mid] == xid)
            return true;
        if (s->xip[mid] < xid)
            low = mid + 1;
        else
            high = mid;
    }
    return false;
}

bool snapshot_visible(const struct snapshot *s, uint64_t xid)
{
    if (xid < s->xmin)
        return true;
    if (xid >= s->xmax)
        return false;
    return !in_progress(s, xid);
}

int snapshot_raise(struct snapshot *s, uint64_t xmax, struct err *err)
{
    uint64_t *xip;
    size_t more;

    if (xmax <= s->xmax)
        return 0;
    if (xmax - s->xmax > SNAPSHOT_RAISE_MAX || s->xip_count > SNAPSHOT_XIP_MAX - SNAPSHOT_RAISE_MAX)
        return err_set(err, ERR_TEMPORARY, "more than %d transactions younger than the last that ended",
                       SNAPSHOT_RAISE_MAX);
    more = (size_t)(xmax - s->xmax);
    xip = realloc(s->xip, (s->xip_count + more) * sizeof(*xip));
    if (!xip)
        return err_set(err, ERR_TEMPORARY, "no memory for a snapshot of %zu transactions",
                       s->xip_count + more);
    s->xip = xip;
    while (s->xmax < xmax)
        s->xip[s->xip_count++] = s->xmax++;
    return 0;
}

/* The same set with the lowest possible list. */
static void tighten(struct snapshot *s)
{
    s->xmin = s->xip_count > 0 ? s->xip[0] : s->xmax;
}

static void remove_open(struct snapshot *s, uint64_t xid)
{
    size_t i = 0;

    while (s->xip[i] != xid)
        i++;
    s->xip_count--;
    memmove(s->xip + i, s->xip + i + 1, (s->xip_count - i) * sizeof(*s->xip));
    tighten(s);
}

int snapshot_add(struct snapshot *s, uint64_t xid, struct err *err)
{
    size_t more;

    if (snapshot_visible(s, xid))
        return 0;
    if (xid < s->xmax) {
        remove_open(s, xid);
        return 0;
    }
    if (xid - s->xmax > SNAPSHOT_XIP_MAX - s->xip_count)
        return err_set(err, ERR_TEMPORARY, "a snapshot of more than %d open transactions", SNAPSHOT_XIP_MAX);
    more = (size_t)(xid - s->xmax);
    if (more > 0) {
        uint64_t *xip = realloc(s->xip, (s->xip_count + more) * sizeof(*xip));

        if (!xip)
            return err_set(err, ERR_TEMPORARY, "no memory for a snapshot of %zu transactions",
                           s->xip_count + more);
        s->xip = xip;
        while (s->xmax < xid)
            s->xip[s->xip_count++] = s->xmax++;
    }
    s->xmax = xid + 1;
    tighten(s);
    return 0;
}

/* What is open in both is open in the list of the one that reaches higher. */
int snapshot_merge(struct snapshot *s, const struct snapshot *other, struct err *err)
{
    struct snapshot higher;
    const struct snapshot *lower = other;
    size_t left = 0;

    if (s->xmax >= other->xmax)
        higher = *s;
    else if (snapshot_copy(other, &higher, err) < 0)
        return -1;
    else
        lower = s;
    for (size_t i = 0; i < higher.xip_count; i++)
        if (!snapshot_visible(lower, higher.xip[i]))
            higher.xip[left++] = higher.xip[i];
    higher.xip_count = left;
    tighten(&higher);
    if (lower == s)
        free(s->xip);
    *s = higher;
    return 0;
}

uint64_t snapshot_expand(uint32_t xid, uint64_t near)
{
    int64_t away = (int32_t)(xid - (uint32_t)near);

    if (away < 0 && (uint64_t)-away > near)
        return xid; /* a young cluster: nothing is below 0 */
    return near + (uint64_t)away;
}

bool snapshot_equal(const struct snapshot *a, const struct snapshot *b)
{
    if (a->xmin != b->xmin || a->xmax != b->xmax || a->xip_count != b->xip_count)
        return false;
    return a->xip_count == 0 || memcmp(a->xip, b->xip, a->xip_count * sizeof(*a->xip)) == 0;
}

size_t snapshot_stragglers(const struct snapshot *prev, const struct snapshot *cur, uint64_t *out)
{
    size_t count = 0;

    for (size_t i = 0; i < prev->xip_count; i++)
        if (snapshot_visible(cur, prev->xip[i]))
            out[count++] = prev->xip[i];
    return count;
}
