/* Fuzz: any bytes as commit metadata, also with the right checksum; what is read is in bounds and is written so that it reads the same. */
#include <stdint.h>
#include <string.h>

#include "common/buf.h"
#include "worker/engine/offset_map.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static uint32_t crc32c(uint32_t crc, const unsigned char *data, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
    }
    return crc;
}

/* The bytes as a payload with its checksum, as an owner of the group with other thoughts could write it. */
static void seal(int64_t base, const unsigned char *data, size_t size, struct buf *out)
{
    unsigned char whole[OFFSET_MAP_PAYLOAD_MAX], offset[8];

    for (unsigned i = 0; i < 8; i++)
        offset[i] = (unsigned char)((uint64_t)base >> (8 * i));
    uint32_t crc = ~crc32c(crc32c(UINT32_MAX, offset, sizeof(offset)), data, size);
    memcpy(whole, data, size);
    for (unsigned i = 0; i < 4; i++)
        whole[size + i] = (unsigned char)(crc >> (8 * i));
    ENSURE(buf_puts(out, "1") == 0 && buf_base64(out, whole, size + 4) == 0);
}

static void check(const char *text, int64_t base)
{
    static struct offset_map_entry first[OFFSET_MAP_ENTRIES_MAX], second[OFFSET_MAP_ENTRIES_MAX];
    struct offset_map map, back;
    char again[OFFSET_MAP_CHARS_MAX + 1];

    if (offset_map_decode(text, base, first, &map) == -1)
        return;
    ENSURE(map.base == base && map.end >= base && map.count <= OFFSET_MAP_ENTRIES_MAX);
    for (size_t i = 0; i < map.count; i++) {
        ENSURE(map.entries[i].offset >= (i == 0 ? base : map.entries[i - 1].offset + 1));
        ENSURE(map.entries[i].offset < map.end && map.entries[i].attempts <= OFFSET_MAP_ATTEMPTS_MAX);
    }
    if (offset_map_encode(&map, again) == 0)
        return;
    ENSURE(strlen(again) <= OFFSET_MAP_CHARS_MAX);
    int rc = offset_map_decode(again, base, second, &back);
    ENSURE(rc == 0 && back.end <= map.end && back.count <= map.count);
    ENSURE(back.end == map.end || back.count < map.count); /* shorter only when it did not fit */
    for (size_t i = 0; i < back.count; i++)
        ENSURE(back.entries[i].offset == first[i].offset && back.entries[i].attempts == first[i].attempts &&
               back.entries[i].ambiguous == first[i].ambiguous);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    struct buf text;
    int64_t base = 0;

    if (size < sizeof(base) || size > OFFSET_MAP_PAYLOAD_MAX - 4)
        return 0;
    memcpy(&base, data, sizeof(base));
    base &= INT64_MAX;
    buf_init(&text, 2 * OFFSET_MAP_CHARS_MAX);
    ENSURE(buf_append(&text, data + sizeof(base), size - sizeof(base)) == 0);
    check(buf_str(&text), base);
    buf_reset(&text);
    seal(base, data + sizeof(base), size - sizeof(base), &text);
    check(buf_str(&text), base);
    buf_done(&text);
    return 0;
}
