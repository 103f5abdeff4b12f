/* Looks at a worker's options together, before anything runs. */
#include "worker/worker_check.h"

#include "common/clock.h"
#include "common/kafka.h"
#include "worker/targets/target.h"
#include "worker/worker_http.h"
#include "worker/worker_protocol.h"
#include "worker/worker_types.h"

#define IN_FLIGHT_MIN_DEFAULT 4 /* who only lowers in_flight_max has not asked for it */

static int batch_check(const struct worker_options *o, const struct target *target, struct err *err)
{
    if (o->batch_max_events > 1 && !target->batches)
        return err_set(
            err, ERR_PERMANENT,
            "batch_max_events is %lld, but each event of %s goes to a path of its own: it must be 1",
            (long long)o->batch_max_events, target->program);
    if (*o->batch_path && *o->batch_path != '/')
        return err_set(err, ERR_PERMANENT, "batch_path \"%s\" does not begin with \"/\"", o->batch_path);
    return 0;
}

static int limits_check(const struct worker_options *o, struct err *err)
{
    if (o->in_flight_min <= o->in_flight_max || o->in_flight_min <= IN_FLIGHT_MIN_DEFAULT)
        return 0;
    return err_set(err, ERR_PERMANENT,
                   "in_flight_min is %lld, but in_flight_max is %lld: lower the one or raise the other",
                   (long long)o->in_flight_min, (long long)o->in_flight_max);
}

static int intake_check(const struct worker_options *o, struct err *err)
{
    struct start start;
    struct sources sources;

    if (types_check(o->types, err) < 0 || start_parse(o->start, clock_wall_ns(), &start, err) < 0 ||
        sources_parse(o->topic, &sources, err) < 0)
        return -1;
    sources_done(&sources);
    return 0;
}

static int requests_check(const struct worker_options *o, struct err *err)
{
    struct auth *auth = auth_new(o, err);
    int r = auth ? worker_http_check(o, auth->kind, err) : -1;
    auth_free(auth);
    return r;
}

int worker_check(const struct worker_options *o, const struct target *target, struct err *err)
{
    if (intake_check(o, err) < 0 || batch_check(o, target, err) < 0 || limits_check(o, err) < 0 ||
        group_protocol_check((enum group_protocol)o->group_protocol, &o->kafka, rd_kafka_version(),
                             rd_kafka_version_str(), err) < 0)
        return -1;
    struct targeting *t = targeting_new(target, o->own, &o->rule, err);
    targeting_free(t);
    return t ? requests_check(o, err) : -1;
}
