/* Encoding and decoding of the offset map; the format and why it always fits stand at the head of offset_map.h. */
#include "worker/engine/offset_map.h"

#include <string.h>

#define VERSION '1'
#define CRC_BYTES 4

enum kind { KIND_LIST = 1, KIND_RUNS = 2 };

/* A bounded place to write bytes to; once full it stays full. */
struct writer {
    uint8_t *data;
    size_t len, limit;
    bool full;
};

struct reader {
    const uint8_t *data;
    size_t len, at;
    bool bad;
};

/* ---- bytes ---------------------------------------------------------------------------------------------------------- */

static size_t varint_bytes(uint64_t value)
{
    size_t bytes = 1;

    while (value >= 0x80) {
        value >>= 7;
        bytes++;
    }
    return bytes;
}

static void put_varint(struct writer *w, uint64_t value)
{
    if (w->full || w->limit - w->len < varint_bytes(value)) {
        w->full = true;
        return;
    }
    while (value >= 0x80) {
        w->data[w->len++] = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    w->data[w->len++] = (uint8_t)value;
}

static uint64_t get_varint(struct reader *r)
{
    uint64_t value = 0;

    for (unsigned shift = 0; shift < 63; shift += 7) { /* nine bytes: every value stays below 2^63 */
        if (r->bad || r->at == r->len)
            break;
        uint8_t byte = r->data[r->at++];
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80)
            return value;
    }
    r->bad = true;
    return 0;
}

static uint32_t crc32c(uint32_t crc, const uint8_t *data, size_t len)
{
    static const uint32_t table[16] = {/* of half bytes, polynomial 0x82f63b78 (Castagnoli, reflected) */
                                       0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3,
                                       0x61c69362, 0x7198540d, 0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9,
                                       0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75};

    crc = ~crc;
    for (size_t i = 0; i < len; i++) {
        crc ^= data[i];
        crc = (crc >> 4) ^ table[crc & 15];
        crc = (crc >> 4) ^ table[crc & 15];
    }
    return ~crc;
}

/* Over the committed offset too, so that a map beside another offset does not pass. */
static uint32_t checksum(int64_t base, const uint8_t *data, size_t len)
{
    uint8_t offset[8];

    for (unsigned i = 0; i < 8; i++)
        offset[i] = (uint8_t)((uint64_t)base >> (8 * i));
    return crc32c(crc32c(0, offset, sizeof(offset)), data, len);
}

static const char ALPHABET[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static size_t base64_write(const uint8_t *data, size_t len, char *out)
{
    size_t n = 0;

    for (size_t i = 0; i < len; i += 3) {
        uint32_t word = (uint32_t)data[i] << 16;
        word |= i + 1 < len ? (uint32_t)data[i + 1] << 8 : 0;
        word |= i + 2 < len ? data[i + 2] : 0;
        out[n++] = ALPHABET[word >> 18];
        out[n++] = ALPHABET[(word >> 12) & 63];
        out[n++] = i + 1 < len ? ALPHABET[(word >> 6) & 63] : '=';
        out[n++] = i + 2 < len ? ALPHABET[word & 63] : '=';
    }
    return n;
}

static int base64_value(char c)
{
    const char *at = c == '\0' ? NULL : strchr(ALPHABET, c);
    return at == NULL ? -1 : (int)(at - ALPHABET);
}

/* One group of four characters; returns its bytes (1 to 3), or 0 when it is not base64. last: padding is allowed. */
static size_t base64_group(const char *text, bool last, uint8_t *out)
{
    size_t pad = !last || text[3] != '=' ? 0 : text[2] != '=' ? 1 : 2;
    uint32_t word = 0;

    for (size_t i = 0; i < 4; i++) {
        int value = i >= 4 - pad ? 0 : base64_value(text[i]);
        if (value < 0)
            return 0;
        word = word << 6 | (uint32_t)value;
    }
    out[0] = (uint8_t)(word >> 16);
    if (pad < 2)
        out[1] = (uint8_t)(word >> 8);
    if (pad < 1)
        out[2] = (uint8_t)word;
    return 3 - pad;
}

/* Returns the number of bytes, or -1. out has room for OFFSET_MAP_PAYLOAD_MAX. */
static int base64_read(const char *text, size_t len, uint8_t *out)
{
    size_t n = 0;

    if (len % 4 != 0 || len / 4 * 3 > OFFSET_MAP_PAYLOAD_MAX)
        return -1;
    for (size_t i = 0; i < len; i += 4) {
        size_t bytes = base64_group(text + i, i + 4 == len, out + n);
        if (bytes == 0)
            return -1;
        n += bytes;
    }
    return (int)n;
}

/* ---- encode --------------------------------------------------------------------------------------------------------- */

size_t offset_map_cost(int64_t skip)
{
    return varint_bytes((uint64_t)skip * 2 + 1) + 1;
}

static uint64_t mark_of(const struct offset_map_entry *entry)
{
    int attempts = entry->attempts > OFFSET_MAP_ATTEMPTS_MAX ? OFFSET_MAP_ATTEMPTS_MAX : entry->attempts;
    return (uint64_t)attempts * 2 + entry->ambiguous;
}

/* As many entries as fit; returns the end of what is described. */
static int64_t write_list(const struct offset_map *map, struct writer *w)
{
    int64_t next = map->base;

    for (size_t i = 0; i < map->count; i++) {
        const struct offset_map_entry *entry = &map->entries[i];
        size_t before = w->len;
        put_varint(w, (uint64_t)(entry->offset - next) * 2 + (mark_of(entry) > 0));
        if (mark_of(entry) > 0)
            put_varint(w, mark_of(entry));
        if (w->full) {
            w->len = before;
            return entry->offset;
        }
        next = entry->offset + 1;
    }
    return map->end;
}

/* Calls put for every run but the last complete one; returns how many. */
static uint64_t each_run(const struct offset_map *map, struct writer *w,
                         void (*put)(struct writer *w, uint64_t len))
{
    int64_t next = map->base, start = map->base;
    uint64_t runs = 0;

    for (size_t i = 0; i < map->count; i++) {
        int64_t offset = map->entries[i].offset;
        if (offset != next) {
            put(w, (uint64_t)(next - start));
            put(w, (uint64_t)(offset - next));
            runs += 2;
            start = offset;
        }
        next = offset + 1;
    }
    if (next > start) {
        put(w, (uint64_t)(next - start));
        runs++;
    }
    return runs;
}

static void put_nothing(struct writer *w UNUSED, uint64_t len UNUSED)
{
}

static void write_runs(const struct offset_map *map, struct writer *w)
{
    size_t last = 0;

    put_varint(w, each_run(map, w, put_nothing));
    each_run(map, w, put_varint);
    for (size_t i = 0; i < map->count; i++) {
        if (mark_of(&map->entries[i]) > 0) {
            put_varint(w, i - last);
            put_varint(w, mark_of(&map->entries[i]));
            last = i;
        }
    }
}

static bool says_nothing(const struct offset_map *map)
{
    if ((int64_t)map->count != map->end - map->base)
        return false;
    for (size_t i = 0; i < map->count; i++) {
        if (mark_of(&map->entries[i]) > 0)
            return false;
    }
    return true;
}

static size_t write_text(int64_t base, const struct writer *payload, char *ret_text)
{
    uint8_t whole[OFFSET_MAP_PAYLOAD_MAX];
    uint32_t crc = checksum(base, payload->data, payload->len);

    ENSURE(payload->len + CRC_BYTES <= sizeof(whole));
    memcpy(whole, payload->data, payload->len);
    for (unsigned i = 0; i < CRC_BYTES; i++)
        whole[payload->len + i] = (uint8_t)(crc >> (8 * i));
    ret_text[0] = VERSION;
    size_t len = 1 + base64_write(whole, payload->len + CRC_BYTES, ret_text + 1);
    ret_text[len] = '\0';
    return len;
}

size_t offset_map_encode(const struct offset_map *map, char ret_text[OFFSET_MAP_CHARS_MAX + 1])
{
    uint8_t list_bytes[OFFSET_MAP_BODY_MAX], runs_bytes[OFFSET_MAP_BODY_MAX],
        payload_bytes[OFFSET_MAP_PAYLOAD_MAX];
    struct writer list = {.data = list_bytes, .limit = sizeof(list_bytes)};
    struct writer runs = {.data = runs_bytes, .limit = sizeof(runs_bytes)};
    struct writer payload = {.data = payload_bytes, .limit = sizeof(payload_bytes)};

    ret_text[0] = '\0';
    if (says_nothing(map))
        return 0;
    int64_t list_end = write_list(map, &list);
    write_runs(map, &runs);
    bool by_runs = !runs.full && (list.full || runs.len < list.len);
    const struct writer *body = by_runs ? &runs : &list;
    put_varint(&payload, by_runs ? KIND_RUNS : KIND_LIST);
    put_varint(&payload, (uint64_t)((by_runs ? map->end : list_end) - map->base));
    memcpy(payload.data + payload.len, body->data, body->len);
    payload.len += body->len;
    return write_text(map->base, &payload, ret_text);
}

/* ---- decode --------------------------------------------------------------------------------------------------------- */

static int set_mark(struct offset_map_entry *entry, uint64_t mark)
{
    if (mark > OFFSET_MAP_ATTEMPTS_MAX * 2 + 1)
        return -1;
    entry->attempts = (int)(mark / 2);
    entry->ambiguous = mark % 2 == 1;
    return 0;
}

static int add_entry(struct offset_map *map, uint64_t offset, uint64_t mark)
{
    if (map->count == OFFSET_MAP_ENTRIES_MAX || offset >= (uint64_t)map->end)
        return -1;
    map->entries[map->count] = (struct offset_map_entry){.offset = (int64_t)offset};
    return set_mark(&map->entries[map->count++], mark);
}

static int read_list(struct reader *r, struct offset_map *map)
{
    uint64_t next = (uint64_t)map->base;

    while (r->at < r->len) {
        uint64_t word = get_varint(r);
        uint64_t mark = word % 2 == 1 ? get_varint(r) : 0;
        if (r->bad || add_entry(map, next + word / 2, mark) == -1)
            return -1;
        next += word / 2 + 1;
    }
    return 0;
}

static int read_runs(struct reader *r, struct offset_map *map)
{
    uint64_t next = (uint64_t)map->base, runs = get_varint(r);

    for (uint64_t i = 0; i < runs; i++) {
        uint64_t len = get_varint(r);
        if (r->bad || len > (uint64_t)map->end - next)
            return -1;
        for (uint64_t j = 0; i % 2 == 0 && j < len; j++) {
            if (add_entry(map, next + j, 0) == -1)
                return -1;
        }
        next += len;
    }
    return r->bad ? -1 : 0;
}

static int read_run_marks(struct reader *r, struct offset_map *map)
{
    uint64_t at = 0;

    while (r->at < r->len) {
        uint64_t step = get_varint(r), mark = get_varint(r);
        if (r->bad || step >= map->count || at + step >= map->count)
            return -1;
        at += step;
        if (set_mark(&map->entries[at], mark) == -1)
            return -1;
    }
    return 0;
}

static bool checksum_is_right(int64_t base, const uint8_t *data, size_t len)
{
    uint32_t crc = 0;

    for (unsigned i = 0; i < CRC_BYTES; i++)
        crc |= (uint32_t)data[len + i] << (8 * i);
    return crc == checksum(base, data, len);
}

static int read_payload(struct reader *r, struct offset_map *map)
{
    uint64_t kind = get_varint(r), span = get_varint(r);

    if (r->bad || span > (uint64_t)(INT64_MAX - map->base))
        return -1;
    map->end = map->base + (int64_t)span;
    if (kind == KIND_LIST)
        return read_list(r, map);
    if (kind != KIND_RUNS || read_runs(r, map) == -1)
        return -1;
    return read_run_marks(r, map);
}

int offset_map_decode(const char *text, int64_t base, struct offset_map_entry *entries,
                      struct offset_map *ret_map)
{
    uint8_t bytes[OFFSET_MAP_PAYLOAD_MAX];
    struct offset_map map = {.base = base, .end = base, .entries = entries};

    if (text == NULL || text[0] == '\0') {
        *ret_map = map;
        return 0;
    }
    size_t len = strnlen(text, OFFSET_MAP_CHARS_MAX + 1);
    if (base < 0 || text[0] != VERSION || len > OFFSET_MAP_CHARS_MAX)
        return -1;
    int n = base64_read(text + 1, len - 1, bytes);
    if (n < CRC_BYTES || !checksum_is_right(base, bytes, (size_t)n - CRC_BYTES))
        return -1;
    struct reader r = {.data = bytes, .len = (size_t)n - CRC_BYTES};
    if (read_payload(&r, &map) == -1)
        return -1;
    *ret_map = map;
    return 0;
}
