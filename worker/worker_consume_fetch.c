/* Wakes the threads of an old librdkafka that sleep though there is room again. */
#include "worker/worker_consume_fetch.h"

#include <string.h>

#include "common/clock.h"

#define SECRET_BYTES_MAX 4096

bool fetch_looks_again(void)
{
    return rd_kafka_version() >= 0x020200ff;
}

void fetch_again_init(struct fetch_again *f)
{
    f->at = CLOCK_NEVER;
}

void fetch_taken(struct fetch_again *f, int64_t now)
{
    if (f->at == CLOCK_NEVER && !fetch_looks_again())
        f->at = now + FETCH_AGAIN_MS * NS_PER_MS;
}

/* The setting as it stands, empty when it was not given; false: it is longer. */
static bool setting(rd_kafka_t *rk, const char *name, char text[SECRET_BYTES_MAX])
{
    size_t length = SECRET_BYTES_MAX;

    if (rd_kafka_conf_get(rd_kafka_conf(rk), name, text, &length) != RD_KAFKA_CONF_OK) {
        text[0] = '\0';
        return true;
    }
    return length <= SECRET_BYTES_MAX;
}

/*
 * Of the public calls only this one wakes all of a client's threads and does nothing else: it is for changed credentials, and is given
 * those that the client has.
 */
void fetch_run(struct fetch_again *f, rd_kafka_t *rk, int64_t now)
{
    char user[SECRET_BYTES_MAX], password[SECRET_BYTES_MAX];

    if (now < f->at)
        return;
    f->at = CLOCK_NEVER;
    if (setting(rk, "sasl.username", user) && setting(rk, "sasl.password", password)) {
        rd_kafka_error_t *error = rd_kafka_sasl_set_credentials(rk, user, password);
        if (error)
            rd_kafka_error_destroy(error);
    }
    explicit_bzero(password, sizeof(password));
}

int64_t fetch_wait_ns(const struct fetch_again *f, int64_t now)
{
    if (f->at == CLOCK_NEVER)
        return CLOCK_NEVER;
    return f->at > now ? f->at - now : 0;
}
