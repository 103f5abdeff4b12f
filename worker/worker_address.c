/* Tells public addresses from private, local and reserved ones: IANA's special-purpose registries (RFC 6890), as of 2025. */
#include "worker/worker_address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <string.h>

#include "common/compiler.h"

static const struct {
    uint32_t net;
    int bits;
} private4[] = {
    {0x00000000, 8},  /* this network */
    {0x0A000000, 8},  /* private */
    {0x64400000, 10}, /* carrier-grade NAT */
    {0x7F000000, 8},  /* loopback */
    {0xA9FE0000, 16}, /* link-local, with the clouds' metadata services */
    {0xAC100000, 12}, /* private */
    {0xC0000000, 24}, /* protocol assignments */
    {0xC0000200, 24}, /* documentation */
    {0xC0586300, 24}, /* 6to4 relays, deprecated */
    {0xC0A80000, 16}, /* private */
    {0xC6120000, 15}, /* benchmarks */
    {0xC6336400, 24}, /* documentation */
    {0xCB007100, 24}, /* documentation */
    {0xE0000000, 4},  /* multicast */
    {0xF0000000, 4},  /* reserved, broadcast */
};

/* Where in an IPv6 address of that prefix an IPv4 address stands, which then decides; -1: it is private as it is. */
static const struct {
    uint8_t net[16];
    int bits, ipv4_at;
} inside6[] = {
    {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF}, 96, 12},    /* mapped */
    {{0, 0x64, 0xFF, 0x9B, 0, 0, 0, 0, 0, 0, 0, 0}, 96, 12}, /* NAT64 */
    {{0x20, 0x02}, 16, 2},                                   /* 6to4 */
    {{0x20, 0x01, 0, 0}, 23, -1},                            /* protocol assignments, Teredo */
    {{0x20, 0x01, 0x0D, 0xB8}, 32, -1},                      /* documentation */
    {{0x3F, 0xFF}, 20, -1},                                  /* documentation */
};

static bool is_private4(uint32_t host)
{
    for (size_t i = 0; i < ARRAY_LEN(private4); i++)
        if ((host ^ private4[i].net) >> (32 - private4[i].bits) == 0)
            return true;
    return false;
}

static bool has_prefix(const uint8_t *addr, const uint8_t *net, int bits)
{
    int whole = bits / 8, rest = bits % 8;
    if (memcmp(addr, net, (size_t)whole) != 0)
        return false;
    return rest == 0 || (addr[whole] ^ net[whole]) >> (8 - rest) == 0;
}

/* Public is 2000::/3 less the exceptions; all else is local, multicast or not given to anybody. */
static bool is_private6(const uint8_t *addr)
{
    for (size_t i = 0; i < ARRAY_LEN(inside6); i++) {
        uint32_t ipv4;
        if (!has_prefix(addr, inside6[i].net, inside6[i].bits))
            continue;
        if (inside6[i].ipv4_at < 0)
            return true;
        memcpy(&ipv4, addr + inside6[i].ipv4_at, sizeof ipv4);
        return is_private4(ntohl(ipv4));
    }
    return addr[0] >> 5 != 1;
}

bool address_is_private(const struct sockaddr *addr)
{
    if (addr->sa_family == AF_INET)
        return is_private4(ntohl(((const struct sockaddr_in *)(const void *)addr)->sin_addr.s_addr));
    if (addr->sa_family == AF_INET6)
        return is_private6(((const struct sockaddr_in6 *)(const void *)addr)->sin6_addr.s6_addr);
    return true;
}

const char *address_text(const struct sockaddr *addr, char out[ADDRESS_TEXT_BYTES])
{
    const void *bytes = NULL;
    if (addr->sa_family == AF_INET)
        bytes = &((const struct sockaddr_in *)(const void *)addr)->sin_addr;
    if (addr->sa_family == AF_INET6)
        bytes = &((const struct sockaddr_in6 *)(const void *)addr)->sin6_addr;
    if (!bytes || !inet_ntop(addr->sa_family, bytes, out, ADDRESS_TEXT_BYTES))
        memcpy(out, "?", 2);
    return out;
}
