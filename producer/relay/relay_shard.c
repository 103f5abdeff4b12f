/* The shard of a row: the first byte of the SHA-256 of its key, divided among the shards. */
#include "producer/relay/relay_shard.h"

#include <openssl/sha.h>

bool relay_shard_has(const struct relay_shard *s, struct slice key, struct slice event_id)
{
    struct slice by = key.data ? key : event_id;
    unsigned char digest[SHA256_DIGEST_LENGTH];

    if (s->count == 1)
        return true;
    SHA256((const unsigned char *)by.data, by.len, digest);
    return digest[0] % s->count == s->number;
}
