/* Requests to the API: starts them, lets them wait for a token, collects answers, and says how each ended. */
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/utf8.h"
#include "common/version.h"
#include "worker/engine/backoff.h"
#include "worker/worker_http_exchange.h"

#define UNJUDGED_EACH                                                                                        \
    1000 /* answers without the verdict that the target should have given, for a line in the log */
#define TROUBLE_AGAIN_NS (60 * NS_PER_S) /* between two log lines of the same failure */
#define TROUBLE_OTHER_NS NS_PER_S        /* of different ones */
#define ANSWER_LOOK_BYTES_MAX                                                                                \
    16384 /* of an answer, looked at for secrets before a dead letter quotes 1 KiB of it */

/* ---- birth and death ----------------------------------------------------------------------------------------------------- */

/* libcurl before 8.12 keeps TLS sessions to each handle: shared, a new connection costs half a handshake. */
static CURLSH *sessions_new(const char *url)
{
    if (strncasecmp(url, "https:", 6) != 0)
        return NULL;
    CURLSH *sessions = curl_share_init();
    ENSURE(sessions &&
           curl_share_setopt(sessions, CURLSHOPT_SHARE, CURL_LOCK_DATA_SSL_SESSION) == CURLSHE_OK);
    return sessions;
}

struct worker_http *worker_http_new(struct worker *w)
{
    http_warn_of_plain_text(w);
    struct worker_http *h = calloc(1, sizeof *h);
    ENSURE(h && curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK);
    h->w = w;
    h->multi = curl_multi_init();
    h->base = strdup(w->opt.url);
    ENSURE(h->multi && h->base);
    for (size_t n = strlen(h->base); n > 0 && h->base[n - 1] == '/'; n--)
        h->base[n - 1] = '\0';
    snprintf(h->agent, sizeof h->agent, "%s/%s", w->target->program, TANDEM_VERSION);
    curl_multi_setopt(h->multi, CURLMOPT_MAXCONNECTS, (long)w->opt.in_flight_max);
    curl_multi_setopt(h->multi, CURLMOPT_PIPELINING,
                      (long)(w->opt.http_version == 1 ? CURLPIPE_MULTIPLEX : CURLPIPE_NOTHING));
    h->sessions = sessions_new(w->opt.url);
    if (w->auth->kind == AUTH_OAUTH)
        h->token = token_fetch_new(w, h->multi);
    return h;
}

static void exchange_free(struct exchange *x)
{
    transfer_done(&x->transfer);
    request_lines_done(&x->lines);
    buf_done(&x->url);
    exchange_batch_done(x);
    free(x);
}

void worker_http_free(struct worker_http *h)
{
    if (!h)
        return;
    ENSURE(h->under_way == 0); /* engine_lost has CANCELled them */
    while (h->free_list) {
        struct exchange *x = h->free_list;
        h->free_list = x->next;
        exchange_free(x);
    }
    token_fetch_free(h->token);
    curl_multi_cleanup(h->multi);
    curl_share_cleanup(h->sessions);
    curl_global_cleanup();
    free(h->base);
    free(h);
}

/* ---- a request goes out -------------------------------------------------------------------------------------------------- */

/*
 * The engine let it go at another time: what the destination was told since is for what waited here, for a token or a connection, too. And a
 * batch whose body has an event that is not ours any more must not go: its new owner may have sent it, and later ones of its key.
 */
static bool exchange_may_go(const struct exchange *x, int64_t now)
{
    bool whole = !x->batch.b || x->batch.left == x->batch.count;
    return whole && engine_still_sends(x->h->w->engine, now, x->d);
}

static bool exchange_may_send(void *context)
{
    const struct exchange *x = context;
    return exchange_may_go(x, x->h->now);
}

/* From the free list, or a new one: never more than in_flight_max exist. */
static struct exchange *exchange_new(struct worker_http *h)
{
    struct exchange *x = calloc(1, sizeof *x);
    ENSURE(x);
    x->h = h;
    transfer_init(&x->transfer, h->w, TO_API, h->sessions, x);
    x->transfer.may_send = exchange_may_send;
    request_lines_init(&x->lines);
    buf_init(&x->url, REQUEST_PATH_BYTES_MAX + 8192);
    exchange_batch_init(x);
    return x;
}

struct exchange *exchange_take(struct worker_http *h, int64_t now)
{
    struct exchange *x = h->free_list;
    if (x)
        h->free_list = x->next;
    else
        x = exchange_new(h);
    x->started_ns = now;
    x->renewed = x->resent = false;
    h->under_way++;
    return x;
}

/* Those that wait are few and for a short time: a list is enough. */
static void exchange_wait_no_more(struct exchange *x)
{
    struct exchange **at = &x->h->waiting;
    while (*at != x)
        at = &(*at)->next;
    *at = x->next;
    x->waiting = false;
}

void exchange_give_back(struct exchange *x)
{
    struct worker_http *h = x->h;
    if (x->waiting)
        exchange_wait_no_more(x);
    else
        curl_multi_remove_handle(h->multi, x->transfer.easy);
    if (x->batch.b)
        exchange_batch_forget(x);
    else
        x->rec->exchange = NULL;
    x->rec = NULL;
    x->d = NULL;
    x->next = h->free_list;
    h->free_list = x;
    h->under_way--;
}

static struct slice exchange_body(const struct exchange *x)
{
    if (x->batch.b)
        return (struct slice){buf_str(&x->batch.body), x->batch.body.len};
    return x->rec->request.body;
}

static const char *exchange_path(const struct exchange *x)
{
    const char *batch_path = x->h->w->opt.batch_path;
    return x->batch.b && *batch_path ? batch_path : buf_str(&x->rec->request.path);
}

static void exchange_lines(struct exchange *x)
{
    struct worker *w = x->h->w;
    struct trace span;

    record_event(x->rec, &w->scratch);
    trace_child(record_trace(x->rec), &span);
    const struct request_batch batch = {.key = {buf_str(&x->batch.key), x->batch.key.len},
                                        .body = exchange_body(x),
                                        .content_type =
                                            batch_content_type((enum batch_format)w->opt.batch_format)};
    struct request_facts facts = {.rec = x->rec,
                                  .ev = &w->scratch,
                                  .span = &span,
                                  .user_agent = x->h->agent,
                                  .auth = w->auth,
                                  .wall_s = auth_signs(w->auth) ? clock_wall_ns() / NS_PER_S : 0,
                                  .batch = x->batch.b ? &batch : NULL};
    int r = request_lines_build(&x->lines, &facts, NULL);
    ENSURE(r == 0); /* attributes, key and options are bounded well below the limit */
    size_t n = x->lines.count;
    for (size_t i = 0; i < n; i++)
        x->list[i] = (struct curl_slist){(char *)(uintptr_t)request_line(&x->lines, i), &x->list[i + 1]};
    x->list[n] = (struct curl_slist){(char *)(uintptr_t) "Expect:", NULL};
}

static void exchange_prepare(struct exchange *x)
{
    struct slice body = exchange_body(x);
    CURL *easy = x->transfer.easy;

    transfer_begin(&x->transfer);
    buf_reset(&x->url);
    exchange_lines(x);
    int r = buf_puts(&x->url, x->h->base) | buf_puts(&x->url, exchange_path(x));
    ENSURE(r == 0); /* both are bounded */
    curl_easy_setopt(easy, CURLOPT_URL, x->url.data);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, x->list);
    if (body.data || request_expects_body(x->rec->request.method)) {
        curl_easy_setopt(easy, CURLOPT_POST, 1L);
        curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body.len);
        curl_easy_setopt(easy, CURLOPT_POSTFIELDS, body.data ? body.data : "");
    } else
        curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L);
    curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, x->rec->request.method);
}

static void exchange_start(struct exchange *x)
{
    x->token = x->h->w->auth->token.generation;
    exchange_prepare(x);
    CURLMcode code = curl_multi_add_handle(x->h->multi, x->transfer.easy);
    ENSURE(code == CURLM_OK);
}

/* Now, or once there is a token. */
void exchange_start_or_wait(struct exchange *x, int64_t now)
{
    struct worker_http *h = x->h;
    if (!h->token || token_fetch_ready(h->token, now)) {
        exchange_start(x);
        return;
    }
    x->waiting = true;
    x->next = h->waiting;
    h->waiting = x;
}

void worker_http_send(struct worker_http *h, int64_t now, struct delivery *d)
{
    struct exchange *x = exchange_take(h, now);

    x->d = d;
    x->rec = delivery_view(d).ref;
    ENSURE(!x->rec->exchange && x->rec->request.method);
    x->rec->exchange = x;
    exchange_start_or_wait(x, now);
}

void worker_http_cancel(struct worker_http *h, struct record *rec)
{
    (void)h;
    struct exchange *x = rec->exchange;
    if (x && !(x->batch.b && exchange_batch_leave(x, rec)))
        exchange_give_back(x);
    rec->exchange = NULL;
}

/* ---- a request ends ------------------------------------------------------------------------------------------------------ */

/* Remembers the last failure for /readyz and the breaker's line; a line of its own for what is no answer of the API's. */
static void http_trouble(struct worker_http *h, int64_t now, const char *text, bool log)
{
    struct buf clean;
    buf_init(&clean, 2 * HTTP_TROUBLE_BYTES);
    if (auth_redact(h->w->auth, (struct slice){text, strlen(text)}, HIDDEN_WHOLE, &clean) == 0)
        snprintf(h->trouble, sizeof h->trouble, "%.*s", HTTP_TROUBLE_BYTES - 1, buf_str(&clean));
    buf_done(&clean);
    bool same = strcmp(h->trouble, h->told) == 0; /* those of timeouts differ by a millisecond */
    if (!log || (h->told_at && now < h->told_at + (same ? TROUBLE_AGAIN_NS : TROUBLE_OTHER_NS)))
        return;
    LOG_WARNING("the API could not be asked", LOG_STR("error", h->trouble));
    memcpy(h->told, h->trouble, sizeof h->told);
    h->told_at = now;
}

const char *worker_http_trouble(const struct worker_http *h)
{
    return h->trouble[0] ? h->trouble : "none";
}

void exchange_trouble(struct exchange *x, int64_t now, const struct outcome *out, CURLcode code,
                      const char *why)
{
    char text[HTTP_TROUBLE_BYTES];
    bool moved = out->status >= 300 && out->status <= 399;
    if (why)
        snprintf(text, sizeof text, "%s", why);
    else if (out->transport == TRANSPORT_OK)
        snprintf(text, sizeof text, "HTTP %d%s", out->status, moved ? ", which is not followed" : "");
    else
        transfer_trouble(&x->transfer, code, text);
    http_trouble(x->h, now, text, out->transport != TRANSPORT_OK || moved);
}

void exchange_keep_answer(struct exchange *x, struct record *rec, struct slice body, bool whole)
{
    bool cut = !whole || body.len > ANSWER_LOOK_BYTES_MAX;
    struct buf clean;

    if (cut && body.len > ANSWER_LOOK_BYTES_MAX)
        body.len = ANSWER_LOOK_BYTES_MAX;
    buf_reset(&rec->answer);
    buf_init(&clean, 4 * ANSWER_LOOK_BYTES_MAX); /* the shortest secret grows from 4 bytes to 10 */
    if (auth_redact(x->h->w->auth, body, cut ? HIDDEN_CUT_AT_END : HIDDEN_WHOLE, &clean) == 0)
        (void)utf8_clean(&rec->answer, buf_str(&clean), clean.len, RECORD_ANSWER_BYTES_MAX);
    buf_done(&clean);
}

static int64_t exchange_retry_after(const struct exchange *x)
{
    const char *space = " \t\r\n";
    const char *from = x->transfer.retry_after + strspn(x->transfer.retry_after, space);
    size_t len = strcspn(from, "\r\n");
    while (len > 0 && strchr(space, from[len - 1]))
        len--;
    return len ? backoff_retry_after((struct slice){from, len}, clock_wall_ns()) : -1;
}

/* A gateway answers 502 or 504 also for what the API behind it has executed. */
static bool is_doubtful(const struct outcome *out)
{
    return out->transport == TRANSPORT_OK ? out->status >= 500 : out->sent;
}

/* The rules decide, or, after FATAL, nobody. What a program says may quote the answer, and that whatever was sent. */
static void exchange_unjudged(struct worker_http *h, const struct err *err)
{
    struct buf clean;

    buf_init(&clean, 4 * ERR_MESSAGE_BYTES);
    bool readable = auth_redact(h->w->auth, (struct slice){err->message, strlen(err->message)},
                                HIDDEN_CUT_ANYWHERE, &clean) == 0;
    if (err->kind == ERR_FATAL)
        err_set(&h->w->failure, ERR_FATAL, "%s", readable ? buf_str(&clean) : "an answer cannot be judged");
    else if (h->unjudged++ % UNJUDGED_EACH == 0)
        LOG_WARNING("no verdict by the target: the rules decide",
                    LOG_STR("error", readable ? buf_str(&clean) : "not shown"));
    buf_done(&clean);
}

int exchange_judge(struct exchange *x, const struct delivery *d, struct slice body, struct outcome *out)
{
    struct worker *w = x->h->w;
    struct record *rec = delivery_view(d).ref;
    bool before = rec->doubtful || out->resent;
    struct ruling ruling;

    rec->doubtful |= is_doubtful(out) || out->resent;
    if (targeting_is_plain(w->targeting, out->transport, out->status))
        return 0;
    record_event(rec, &w->scratch);
    const struct answer answer = {
        .transport = out->transport,
        .status = out->status,
        .headers = {buf_str(&x->transfer.headers), x->transfer.headers.len},
        .body = body,
        .repeated = before || delivery_view(d).ambiguous || rec->origin.ambiguous,
        .ev = &w->scratch,
        .req = &rec->request,
    };
    struct err err = {0};
    bool ruled = targeting_judge(w->targeting, &answer, &ruling, &err);
    if (err.kind)
        exchange_unjudged(x->h, &err);
    if (ruled) {
        out->verdict = ruling.verdict;
        out->reason = ruling.reason;
    }
    return err.kind == ERR_FATAL ? -1 : 0;
}

struct outcome exchange_outcome(struct exchange *x, CURLcode code)
{
    struct outcome out = {.retry_after_ns = -1,
                          .verdict = -1,
                          .sent = transfer_sent(&x->transfer),
                          .resent = x->resent || transfer_resent(&x->transfer)};
    long status = 0;
    curl_off_t setup_us = 0;

    out.transport = transfer_transport(&x->transfer, code);
    if (out.transport != TRANSPORT_OK)
        return out;
    curl_easy_getinfo(x->transfer.easy, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_getinfo(x->transfer.easy, CURLINFO_PRETRANSFER_TIME_T, &setup_us);
    out.status = (int)status;
    out.setup_ns = setup_us * 1000;
    if (x->h->token && status >= 200 && status <= 299)
        auth_token_worked(&x->h->w->auth->token, x->token);
    out.retry_after_ns = exchange_retry_after(x);
    if (x->transfer.quota.has_remaining)
        out.quota_wait_ns = quota_wait(&x->transfer.quota, clock_wall_ns());
    return out;
}

bool exchange_is_success(const struct outcome *out)
{
    if (out->verdict >= 0)
        return out->verdict == VERDICT_DELIVERED || out->verdict == VERDICT_DUPLICATE_OK;
    return out->transport == TRANSPORT_OK && out->status >= 200 && out->status <= 299;
}

static void exchange_end_unsent(struct exchange *x, int64_t now, const struct outcome *out)
{
    struct engine *engine = x->h->w->engine;
    struct delivery *d = x->d;
    struct batch *b = x->batch.b;

    buf_reset(&x->rec->answer);
    exchange_give_back(x);
    if (b)
        engine_batch_response(engine, now, b, out, NULL);
    else
        engine_response(engine, now, d, out);
}

static void exchange_end_later(struct exchange *x, int64_t now)
{
    const struct outcome not_now = {
        .transport = TRANSPORT_CANCELLED, .retry_after_ns = -1, .verdict = -1, .resent = x->resent};
    exchange_end_unsent(x, now, &not_now);
}

static bool exchange_comes_too_late(struct exchange *x, int64_t now)
{
    if (exchange_may_go(x, now))
        return false;
    exchange_end_later(x, now);
    return true;
}

/* When it had a connection it was not to go any more. */
static bool exchange_was_held_back(const struct exchange *x, CURLcode code)
{
    return code == CURLE_ABORTED_BY_CALLBACK && !transfer_sent(&x->transfer);
}

/*
 * The token may have been withdrawn: once, the same request with another one. Not when this event was refused with two tokens before, and the
 * one in force serves others: all would have to wait for a new one each time that it comes again.
 */
bool exchange_renew(struct exchange *x, int64_t now, const struct outcome *out)
{
    struct auth_token *token = &x->h->w->auth->token;

    if (!x->h->token || out->transport != TRANSPORT_OK || out->status != 401)
        return false;
    if (x->renewed || (x->rec->unauthorized && auth_token_is_known_to_work(token))) {
        x->rec->unauthorized = true;
        auth_token_worked(token, 0); /* until it serves somebody again */
        return false;
    }
    x->renewed = true;
    x->resent = out->resent;
    auth_token_refused(token, x->token);
    if (exchange_comes_too_late(x, now))
        return true;
    curl_multi_remove_handle(x->h->multi, x->transfer.easy);
    exchange_start_or_wait(x, now);
    return true;
}

static void exchange_end(struct exchange *x, int64_t now, CURLcode code)
{
    struct worker *w = x->h->w;
    struct delivery *d = x->d;
    struct outcome out = exchange_outcome(x, code);
    struct slice body = {buf_str(&x->transfer.body), x->transfer.body.len};

    if (exchange_judge(x, d, body, &out) < 0) {
        exchange_give_back(x);
        return;
    }
    bool success = exchange_is_success(&out);
    if (!success && exchange_renew(x, now, &out))
        return;
    worker_stats_answered(w, now - x->started_ns);
    if (success) {
        worker_stats_delivered(w, x->rec);
    } else {
        exchange_trouble(x, now, &out, code, NULL);
        exchange_keep_answer(x, x->rec, body, out.transport == TRANSPORT_OK);
    }
    exchange_give_back(x);
    engine_response(w->engine, now, d, &out);
}

/*
 * Without a token there is no attempt: the verdict is the one for refused credentials, which opens the breaker and spends nothing. Its
 * probes then ask the token server again. With the token before, it may have gone out twice.
 */
static void exchange_end_without_token(struct exchange *x, int64_t now)
{
    const struct outcome out = {.transport = TRANSPORT_CONNECT,
                                .retry_after_ns = -1,
                                .sent = false,
                                .resent = x->resent,
                                .verdict = VERDICT_AUTH};
    exchange_end_unsent(x, now, &out);
}

static void http_token_end(struct worker_http *h, int64_t now, CURLcode code)
{
    char trouble[HTTP_TROUBLE_BYTES];
    bool came = token_fetch_end(h->token, now, code, trouble) == 0;

    if (!came)
        http_trouble(h, now, trouble, true);
    while (h->waiting) { /* a failed refresh finds nobody here: the old token was good enough to go on */
        struct exchange *x = h->waiting;
        if (!came) {
            exchange_end_without_token(x, now);
            continue;
        }
        if (exchange_comes_too_late(x, now))
            continue;
        exchange_wait_no_more(x);
        exchange_start(x);
    }
}

void worker_http_turn(struct worker_http *h, int64_t now)
{
    int running, left;
    CURLMsg *msg;

    h->now = now;
    CURLMcode turned = curl_multi_perform(h->multi, &running);
    ENSURE(turned == CURLM_OK);
    while ((msg = curl_multi_info_read(h->multi, &left)) != NULL) {
        struct exchange *x = NULL;
        CURLcode code = msg->data.result; /* msg is gone once the handle is taken out */
        if (msg->msg != CURLMSG_DONE)
            continue;
        if (token_fetch_owns(h->token, msg->easy_handle)) {
            http_token_end(h, now, code);
            continue;
        }
        curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, &x);
        if (exchange_was_held_back(x, code))
            exchange_end_later(x, now);
        else if (x->batch.b)
            exchange_batch_end(x, now, code);
        else
            exchange_end(x, now, code);
    }
}

void worker_http_wait(struct worker_http *h, int64_t ns, int extra_fd)
{
    struct curl_waitfd extra = {.fd = extra_fd, .events = CURL_WAIT_POLLIN};
    int64_t ms = ns > 60000 * NS_PER_MS ? 60000 : (ns + NS_PER_MS - 1) / NS_PER_MS;
    curl_multi_poll(h->multi, &extra, extra_fd < 0 ? 0 : 1, (int)ms, NULL);
}

void worker_http_wake(struct worker_http *h)
{
    curl_multi_wakeup(h->multi);
}
