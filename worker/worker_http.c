/* Requests to the API: the only curl room. Starts them, collects answers, and says how each ended. */
#include "worker/worker_http.h"

#include <curl/curl.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/utf8.h"
#include "common/version.h"
#include "worker/engine/backoff.h"
#include "worker/worker.h"
#include "worker/worker_request.h"

#define HTTP_HEADER_BYTES_MAX 65536 /* of an answer's headers */
#define RETRY_AFTER_BYTES_MAX 64

/* One request under way. Kept and used again: making an easy handle costs more than a request. */
struct exchange {
    struct worker_http *h;
    CURL *easy;
    struct delivery *d;
    struct record *rec;
    struct request_lines lines;
    struct curl_slist list[REQUEST_LINES_MAX + 1]; /* points into lines; curl only reads it */
    struct buf url, body;
    size_t header_bytes;
    char retry_after[RETRY_AFTER_BYTES_MAX];
    int64_t started_ns;
    struct exchange *next_free;
};

struct worker_http {
    struct worker *w;
    CURLM *multi;
    char *base; /* the API's address without a trailing slash */
    char agent[80];
    struct exchange *free_list;
    int under_way;
};

/* ---- birth and death ----------------------------------------------------------------------------------------------------- */

/* Credentials in the address would stand in logs and process lists; and a wrong address that has some must not be quoted. */
static int http_refuse_credentials(const char *url, struct err *err)
{
    const char *authority = strstr(url, "://");
    authority = authority ? authority + 3 : url;
    if (!memchr(authority, '@', strcspn(authority, "/?#")))
        return 0;
    return err_set(err, ERR_PERMANENT, "url carries a user or password before \"@\": use api_key instead");
}

static int http_check_ca(const char *path, struct err *err)
{
    if (*path == '\0' || access(path, R_OK) == 0)
        return 0;
    return err_set(err, ERR_PERMANENT, "tls_ca_file \"%s\": %s", path, strerror(errno));
}

/* The address must be one that can be joined with a path; said at the start, not at the first event. */
static int http_check_url(const char *url, struct err *err)
{
    CURLU *parsed = curl_url();
    ENSURE(parsed);
    char *scheme = NULL, *query = NULL, *fragment = NULL;
    CURLUcode code = curl_url_set(parsed, CURLUPART_URL, url, 0);
    if (!code)
        code = curl_url_get(parsed, CURLUPART_SCHEME, &scheme, 0);
    bool http = !code && (strcmp(scheme, "http") == 0 || strcmp(scheme, "https") == 0);
    bool tail = curl_url_get(parsed, CURLUPART_QUERY, &query, 0) == CURLUE_OK ||
                curl_url_get(parsed, CURLUPART_FRAGMENT, &fragment, 0) == CURLUE_OK;
    curl_free(scheme);
    curl_free(query);
    curl_free(fragment);
    curl_url_cleanup(parsed);
    if (code || !http || tail)
        return err_set(err, ERR_PERMANENT, "url \"%s\" is not an http or https address without query: %s",
                       url,
                       code ? curl_url_strerror(code) : "expected like \"https://api.example.com/base\"");
    return 0;
}

struct worker_http *worker_http_new(struct worker *w, struct err *err)
{
    if (http_refuse_credentials(w->opt.url, err) < 0 || http_check_url(w->opt.url, err) < 0 ||
        http_check_ca(w->opt.tls_ca_file, err) < 0)
        return NULL;
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
    curl_multi_setopt(h->multi, CURLMOPT_PIPELINING, (long)CURLPIPE_NOTHING);
    return h;
}

static void exchange_free(struct exchange *x)
{
    curl_easy_cleanup(x->easy);
    request_lines_done(&x->lines);
    buf_done(&x->url);
    buf_done(&x->body);
    free(x);
}

void worker_http_free(struct worker_http *h)
{
    if (!h)
        return;
    ENSURE(h->under_way == 0); /* engine_lost has CANCELled them */
    while (h->free_list) {
        struct exchange *x = h->free_list;
        h->free_list = x->next_free;
        exchange_free(x);
    }
    curl_multi_cleanup(h->multi);
    curl_global_cleanup();
    free(h->base);
    free(h);
}

/* ---- an answer comes in -------------------------------------------------------------------------------------------------- */

/* Returning less than what came makes curl end the request with CURLE_WRITE_ERROR: over the cap is garbage. */
static size_t on_body(char *data, size_t size, size_t n, void *context)
{
    struct exchange *x = context;
    return buf_append(&x->body, data, size * n) < 0 ? 0 : size * n;
}

static size_t on_header(char *data, size_t size, size_t n, void *context)
{
    static const char name[] = "retry-after:";
    struct exchange *x = context;
    size_t len = size * n;

    x->header_bytes += len;
    if (x->header_bytes > HTTP_HEADER_BYTES_MAX)
        return 0;
    if (len >= sizeof name - 1 && strncasecmp(data, name, sizeof name - 1) == 0) {
        size_t room = len - (sizeof name - 1);
        if (room < sizeof x->retry_after) {
            memcpy(x->retry_after, data + sizeof name - 1, room);
            x->retry_after[room] = '\0';
        }
    }
    return len;
}

/* ---- a request goes out -------------------------------------------------------------------------------------------------- */

static void exchange_setup(struct exchange *x, const struct worker_options *opt)
{
    curl_easy_setopt(x->easy, CURLOPT_PRIVATE, x);
    curl_easy_setopt(x->easy, CURLOPT_NOSIGNAL, 1L);
    /* A resolver that hangs is left to end by itself: without this the loop would wait for it at each timeout. */
    curl_easy_setopt(x->easy, CURLOPT_QUICK_EXIT, 1L);
    curl_easy_setopt(x->easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(x->easy, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(x->easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(x->easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    curl_easy_setopt(x->easy, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(x->easy, CURLOPT_PROXY, ""); /* what an environment variable names is not the API */
    curl_easy_setopt(x->easy, CURLOPT_TCP_NODELAY, 1L);
    curl_easy_setopt(x->easy, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(x->easy, CURLOPT_BUFFERSIZE, 16384L);
    curl_easy_setopt(x->easy, CURLOPT_CONNECTTIMEOUT_MS, (long)(opt->connect_timeout / NS_PER_MS));
    curl_easy_setopt(x->easy, CURLOPT_TIMEOUT_MS, (long)(opt->request_timeout / NS_PER_MS));
    curl_easy_setopt(x->easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(x->easy, CURLOPT_WRITEDATA, x);
    curl_easy_setopt(x->easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(x->easy, CURLOPT_HEADERDATA, x);
    if (*opt->tls_ca_file)
        curl_easy_setopt(x->easy, CURLOPT_CAINFO, opt->tls_ca_file);
}

/* From the free list, or a new one: never more than in_flight_max exist. */
static struct exchange *exchange_take(struct worker_http *h)
{
    struct exchange *x = h->free_list;
    if (x) {
        h->free_list = x->next_free;
        return x;
    }
    x = calloc(1, sizeof *x);
    ENSURE(x);
    x->h = h;
    x->easy = curl_easy_init();
    ENSURE(x->easy);
    request_lines_init(&x->lines);
    buf_init(&x->url, REQUEST_PATH_BYTES_MAX + 8192);
    buf_init(&x->body, (size_t)h->w->opt.response_body_max);
    exchange_setup(x, &h->w->opt);
    return x;
}

static void exchange_give_back(struct exchange *x)
{
    struct worker_http *h = x->h;
    curl_multi_remove_handle(h->multi, x->easy);
    x->rec->exchange = NULL;
    x->rec = NULL;
    x->d = NULL;
    x->next_free = h->free_list;
    h->free_list = x;
    h->under_way--;
}

static void exchange_lines(struct exchange *x)
{
    struct worker *w = x->h->w;
    struct trace span;

    record_event(x->rec, &w->scratch);
    trace_child(record_trace(x->rec), &span);
    struct request_facts facts = {
        .rec = x->rec, .ev = &w->scratch, .span = &span, .user_agent = x->h->agent, .auth = w->auth};
    int r = request_lines_build(&x->lines, &facts, NULL);
    ENSURE(r == 0); /* attributes, key and options are bounded well below the limit */
    size_t n = x->lines.count;
    for (size_t i = 0; i < n; i++)
        x->list[i] = (struct curl_slist){(char *)(uintptr_t)request_line(&x->lines, i), &x->list[i + 1]};
    x->list[n] = (struct curl_slist){(char *)(uintptr_t) "Expect:", NULL};
}

static void exchange_prepare(struct exchange *x)
{
    const struct request *req = &x->rec->request;

    buf_reset(&x->body);
    buf_reset(&x->url);
    x->header_bytes = 0;
    x->retry_after[0] = '\0';
    exchange_lines(x);
    int r = buf_puts(&x->url, x->h->base) | buf_puts(&x->url, buf_str(&req->path));
    ENSURE(r == 0); /* both are bounded */
    curl_easy_setopt(x->easy, CURLOPT_URL, x->url.data);
    curl_easy_setopt(x->easy, CURLOPT_HTTPHEADER, x->list);
    if (req->body.data) {
        curl_easy_setopt(x->easy, CURLOPT_POST, 1L);
        curl_easy_setopt(x->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)req->body.len);
        curl_easy_setopt(x->easy, CURLOPT_POSTFIELDS, req->body.data);
    } else
        curl_easy_setopt(x->easy, CURLOPT_HTTPGET, 1L);
    curl_easy_setopt(x->easy, CURLOPT_CUSTOMREQUEST, req->method);
}

void worker_http_send(struct worker_http *h, int64_t now, struct delivery *d)
{
    struct exchange *x = exchange_take(h);

    x->d = d;
    x->rec = delivery_view(d).ref;
    ENSURE(!x->rec->exchange && x->rec->request.method);
    x->rec->exchange = x;
    x->started_ns = now;
    h->under_way++;
    exchange_prepare(x);
    CURLMcode code = curl_multi_add_handle(h->multi, x->easy);
    ENSURE(code == CURLM_OK);
}

void worker_http_cancel(struct worker_http *h, struct record *rec)
{
    (void)h;
    if (rec->exchange)
        exchange_give_back(rec->exchange);
}

/* ---- a request ends ------------------------------------------------------------------------------------------------------ */

static bool exchange_sent(struct exchange *x)
{
    long bytes = 0;
    curl_easy_getinfo(x->easy, CURLINFO_REQUEST_SIZE, &bytes);
    return bytes > 0;
}

/* The body of an answer that was no success goes into the record: a dead letter will quote it. */
static void exchange_keep_answer(struct exchange *x)
{
    struct buf clean;

    buf_reset(&x->rec->answer);
    buf_init(&clean, x->body.limit * 4 + 64);
    if (auth_redact(x->h->w->auth, buf_str(&x->body), x->body.len, &clean) == 0)
        (void)utf8_clean(&x->rec->answer, buf_str(&clean), clean.len, RECORD_ANSWER_BYTES_MAX);
    buf_done(&clean);
}

static int64_t exchange_retry_after(const struct exchange *x)
{
    const char *space = " \t\r\n";
    const char *from = x->retry_after + strspn(x->retry_after, space);
    size_t len = strcspn(from, "\r\n");
    while (len > 0 && strchr(space, from[len - 1]))
        len--;
    return len ? backoff_retry_after((struct slice){from, len}, clock_wall_ns()) : -1;
}

static struct outcome exchange_outcome(struct exchange *x, CURLcode code)
{
    const struct target *target = x->h->w->target;
    struct outcome out = {.retry_after_ns = -1, .verdict = -1, .sent = exchange_sent(x)};
    long status = 0;

    out.transport = http_transport((int)code, out.sent);
    if (out.transport != TRANSPORT_OK)
        return out;
    curl_easy_getinfo(x->easy, CURLINFO_RESPONSE_CODE, &status);
    out.status = (int)status;
    out.retry_after_ns = exchange_retry_after(x);
    if (target->judge) {
        record_event(x->rec, &x->h->w->scratch);
        out.verdict = target->judge(&x->h->w->scratch, out.status, (struct slice){x->body.data, x->body.len});
    }
    return out;
}

static void exchange_end(struct exchange *x, int64_t now, CURLcode code)
{
    struct worker *w = x->h->w;
    struct delivery *d = x->d;
    struct outcome out = exchange_outcome(x, code);
    bool success = out.transport == TRANSPORT_OK && out.status >= 200 && out.status <= 299;

    if (!success)
        exchange_keep_answer(x);
    worker_stats_answered(w, x->rec, now - x->started_ns, success);
    exchange_give_back(x);
    engine_response(w->engine, now, d, &out);
}

void worker_http_turn(struct worker_http *h, int64_t now)
{
    int running, left;
    CURLMsg *msg;

    CURLMcode code = curl_multi_perform(h->multi, &running);
    ENSURE(code == CURLM_OK);
    while ((msg = curl_multi_info_read(h->multi, &left)) != NULL) {
        struct exchange *x = NULL;
        if (msg->msg != CURLMSG_DONE)
            continue;
        CURLcode result = msg->data.result; /* msg is gone once the handle is taken out */
        curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, &x);
        exchange_end(x, now, result);
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

/* ---- what a curl code means ----------------------------------------------------------------------------------------------- */

/* Every code that is not here is a broken connection: after sending it is ambiguous. */
static const struct {
    CURLcode code;
    enum transport sent, unsent;
} transports[] = {
    {CURLE_OK, TRANSPORT_OK, TRANSPORT_OK},
    {CURLE_COULDNT_RESOLVE_HOST, TRANSPORT_CONNECT, TRANSPORT_CONNECT},
    {CURLE_COULDNT_RESOLVE_PROXY, TRANSPORT_CONNECT, TRANSPORT_CONNECT},
    {CURLE_COULDNT_CONNECT, TRANSPORT_CONNECT, TRANSPORT_CONNECT},
    {CURLE_SSL_CONNECT_ERROR, TRANSPORT_CONNECT, TRANSPORT_CONNECT},
    {CURLE_OPERATION_TIMEDOUT, TRANSPORT_TIMEOUT, TRANSPORT_TIMEOUT_CONNECT},
    {CURLE_WEIRD_SERVER_REPLY, TRANSPORT_GARBAGE, TRANSPORT_GARBAGE},
    {CURLE_UNSUPPORTED_PROTOCOL, TRANSPORT_GARBAGE,
     TRANSPORT_REFUSED}, /* after sending: an answer that is not HTTP/1.x */
    {CURLE_WRITE_ERROR, TRANSPORT_GARBAGE, TRANSPORT_GARBAGE}, /* our caps on headers and body */
#if LIBCURL_VERSION_NUM >= 0x080600
    {CURLE_TOO_LARGE, TRANSPORT_GARBAGE, TRANSPORT_GARBAGE},
#endif
    {CURLE_BAD_CONTENT_ENCODING, TRANSPORT_GARBAGE, TRANSPORT_GARBAGE},
    {CURLE_FILESIZE_EXCEEDED, TRANSPORT_GARBAGE, TRANSPORT_GARBAGE},
    {CURLE_URL_MALFORMAT, TRANSPORT_REFUSED, TRANSPORT_REFUSED},
    {CURLE_PEER_FAILED_VERIFICATION, TRANSPORT_REFUSED, TRANSPORT_REFUSED},
    {CURLE_SSL_CERTPROBLEM, TRANSPORT_REFUSED, TRANSPORT_REFUSED},
    {CURLE_SSL_CACERT_BADFILE, TRANSPORT_REFUSED, TRANSPORT_REFUSED},
    {CURLE_SSL_CIPHER, TRANSPORT_REFUSED, TRANSPORT_REFUSED},
    {CURLE_SSL_ISSUER_ERROR, TRANSPORT_REFUSED, TRANSPORT_REFUSED},
    {CURLE_SSL_INVALIDCERTSTATUS, TRANSPORT_REFUSED, TRANSPORT_REFUSED},
    {CURLE_SSL_PINNEDPUBKEYNOTMATCH, TRANSPORT_REFUSED, TRANSPORT_REFUSED},
};

enum transport http_transport(int curl_code, bool sent)
{
    for (size_t i = 0; i < ARRAY_LEN(transports); i++)
        if ((int)transports[i].code == curl_code)
            return sent ? transports[i].sent : transports[i].unsent;
    return sent ? TRANSPORT_RESET : TRANSPORT_CONNECT;
}
