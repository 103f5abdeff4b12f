/* Sets a transfer up once, bounds what its answer may be, and says how it ended. */
#include "worker/worker_http_transfer.h"

#include <string.h>
#include <sys/socket.h>

#include "common/clock.h"
#include "worker/worker_http.h"

#define PROXY_LOGIN_BYTES_MAX (3 * AUTH_SECRET_BYTES_MAX + 2) /* escaped, a colon between */

/* ---- an answer comes in -------------------------------------------------------------------------------------------------- */

/* Returning less than what came makes curl end the request with CURLE_WRITE_ERROR: over the cap is garbage. */
static size_t on_body(char *data, size_t size, size_t n, void *context)
{
    struct transfer *t = context;
    return buf_append(&t->body, data, size * n) < 0 ? 0 : size * n;
}

/* Those of the last answer: an interim one is begun anew. What does not fit is left out, as whole lines. */
static void keep_header(struct transfer *t, const char *line, size_t len)
{
    if (len >= 5 && memcmp(line, "HTTP/", 5) == 0)
        buf_reset(&t->headers);
    else if (!t->headers.failed)
        (void)buf_append(&t->headers, line, len);
}

static size_t on_header(char *data, size_t size, size_t n, void *context)
{
    static const char name[] = "retry-after:";
    struct transfer *t = context;
    size_t len = size * n;

    t->header_bytes += len;
    if (t->header_bytes > HTTP_HEADER_BYTES_MAX)
        return 0;
    if (t->keep_headers)
        keep_header(t, data, len);
    if (len > 0 && strchr("RrXx", data[0]))
        quota_header(&t->quota, (struct slice){data, len});
    if (len >= sizeof name - 1 && strncasecmp(data, name, sizeof name - 1) == 0) {
        size_t room = len - (sizeof name - 1);
        if (room < sizeof t->retry_after) {
            memcpy(t->retry_after, data + sizeof name - 1, room);
            t->retry_after[room] = '\0';
        }
    }
    return len;
}

/*
 * The address is the one that is connected to, so a name that is resolved anew to another address does not get around this. A connection
 * that is used again was let through when it was made.
 */
static curl_socket_t on_socket(void *context, curlsocktype purpose, struct curl_sockaddr *address)
{
    struct transfer *t = context;
    (void)purpose;
    if (!address_is_private(&address->addr))
        return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
    address_text(&address->addr, t->refused);
    return CURL_SOCKET_BAD;
}

/*
 * Called when there is a connection, right before the request goes out. Libcurl sends it again by itself when a connection that was used before
 * ends without a byte of an answer: mostly it had been idle for too long, but the API may have executed it and died.
 */
static int on_request(void *context, char *ip, char *local_ip, int port, int local_port)
{
    struct transfer *t = context;
    (void)ip, (void)local_ip, (void)port, (void)local_port;
    if (t->may_send && !t->may_send(t->context))
        return CURL_PREREQFUNC_ABORT;
    t->sends++;
    return CURL_PREREQFUNC_OK;
}

/* ---- set up --------------------------------------------------------------------------------------------------------------- */

static void setup_protocol(const struct transfer *t, const struct worker_options *o)
{
    bool two = t->to == TO_API && o->http_version == 1;
    curl_easy_setopt(t->easy, CURLOPT_HTTP_VERSION,
                     (long)(two ? CURL_HTTP_VERSION_2TLS : CURL_HTTP_VERSION_1_1));
    curl_easy_setopt(t->easy, CURLOPT_PIPEWAIT,
                     two ? 1L : 0L); /* for a stream rather than a connection more */
    curl_easy_setopt(t->easy, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(t->easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(t->easy, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(t->easy, CURLOPT_TCP_NODELAY, 1L);
    curl_easy_setopt(t->easy, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(t->easy, CURLOPT_BUFFERSIZE, 2048L);
    curl_easy_setopt(t->easy, CURLOPT_CONNECTTIMEOUT_MS, (long)(o->connect_timeout / NS_PER_MS));
    curl_easy_setopt(t->easy, CURLOPT_TIMEOUT_MS, (long)(o->request_timeout / NS_PER_MS));
}

static void setup_tls(const struct transfer *t, const struct worker_options *o)
{
    const char *ca = t->to == TO_TOKEN_SERVER && *o->oauth_ca_file ? o->oauth_ca_file : o->tls_ca_file;
    curl_easy_setopt(t->easy, CURLOPT_SSLVERSION,
                     (long)(o->tls_min_version == 0 ? CURL_SSLVERSION_TLSv1_2 : CURL_SSLVERSION_TLSv1_3));
    curl_easy_setopt(t->easy, CURLOPT_CA_CACHE_TIMEOUT, 60L); /* of a day: a changed file is to be noticed */
    if (*ca)
        curl_easy_setopt(t->easy, CURLOPT_CAINFO, ca);
    if (*o->tls_ca_file)
        curl_easy_setopt(t->easy, CURLOPT_PROXY_CAINFO, o->tls_ca_file);
}

/* What environment variables name is asked only where that is wanted. */
static void setup_proxy(const struct transfer *t, const struct worker_options *o)
{
    if (strcmp(o->proxy, "environment") == 0)
        return;
    curl_easy_setopt(t->easy, CURLOPT_PROXY, o->proxy);
    curl_easy_setopt(t->easy, CURLOPT_NOPROXY, "");
}

void transfer_init(struct transfer *t, const struct worker *w, enum transfer_to to, CURLSH *sessions,
                   void *context)
{
    const struct worker_options *o = &w->opt;

    *t = (struct transfer){.w = w, .to = to, .easy = curl_easy_init(), .context = context};
    ENSURE(t->easy);
    t->keep_headers = to == TO_API && targeting_wants_headers(w->targeting);
    buf_init(&t->headers, ANSWER_HEADER_BYTES_MAX);
    buf_init(&t->body, to == TO_API ? (size_t)o->response_body_max : AUTH_OAUTH_ANSWER_BYTES_MAX);
    curl_easy_setopt(t->easy, CURLOPT_PRIVATE, context);
    curl_easy_setopt(t->easy, CURLOPT_NOSIGNAL, 1L);
    /* A resolver that hangs is left to end by itself: without this the loop would wait for it at each timeout. */
    curl_easy_setopt(t->easy, CURLOPT_QUICK_EXIT, 1L);
    curl_easy_setopt(t->easy, CURLOPT_SHARE, sessions);
    curl_easy_setopt(t->easy, CURLOPT_ERRORBUFFER, t->error);
    curl_easy_setopt(t->easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(t->easy, CURLOPT_WRITEDATA, t);
    curl_easy_setopt(t->easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(t->easy, CURLOPT_HEADERDATA, t);
    curl_easy_setopt(t->easy, CURLOPT_PREREQFUNCTION, on_request);
    curl_easy_setopt(t->easy, CURLOPT_PREREQDATA, t);
    if (o->refuse_private) {
        curl_easy_setopt(t->easy, CURLOPT_OPENSOCKETFUNCTION, on_socket);
        curl_easy_setopt(t->easy, CURLOPT_OPENSOCKETDATA, t);
    }
    setup_protocol(t, o);
    setup_tls(t, o);
    setup_proxy(t, o);
}

void transfer_done(struct transfer *t)
{
    curl_easy_cleanup(t->easy);
    buf_done(&t->body);
    buf_done(&t->headers);
}

/*
 * As text, not as a path: curl compares what it was given, so a connection or TLS session made with the old certificate is not
 * taken for the new one.
 */
static void take_identity(struct transfer *t, const struct auth_identity *id)
{
    struct curl_blob cert = {.data = id->cert, .len = strlen(id->cert), .flags = CURL_BLOB_COPY};
    struct curl_blob key = {.data = id->key, .len = strlen(id->key), .flags = CURL_BLOB_COPY};
    curl_easy_setopt(t->easy, CURLOPT_SSLCERT_BLOB, &cert);
    curl_easy_setopt(t->easy, CURLOPT_SSLKEY_BLOB, &key);
    t->identity = id->generation;
}

static void put_escaped(struct buf *out, CURL *easy, const char *text)
{
    char *escaped = curl_easy_escape(easy, text, (int)strlen(text));
    ENSURE(escaped && buf_puts(out, escaped) == 0);
    explicit_bzero(escaped, strlen(escaped));
    curl_free(escaped);
}

/* Escaped: each libcurl decodes this option, and some the two for user and password alone as well. */
static void take_proxy_login(struct transfer *t)
{
    const struct worker_options *o = &t->w->opt;
    const char *password = auth_secret_text(t->w->auth, AUTH_WORD_PROXY);
    struct buf login;

    if (!*o->proxy_user || strcmp(o->proxy, "environment") == 0)
        return;
    buf_init(&login, PROXY_LOGIN_BYTES_MAX);
    put_escaped(&login, t->easy, o->proxy_user);
    ENSURE(buf_puts(&login, ":") == 0);
    put_escaped(&login, t->easy, password ? password : "");
    curl_easy_setopt(t->easy, CURLOPT_PROXYUSERPWD, login.data);
    explicit_bzero(login.data, login.cap);
    buf_done(&login);
}

void transfer_begin(struct transfer *t)
{
    const struct auth *auth = t->w->auth;

    buf_reset(&t->body);
    buf_reset(&t->headers);
    t->header_bytes = 0;
    t->sends = 0;
    t->retry_after[0] = '\0';
    t->quota = (struct quota){0};
    t->error[0] = '\0';
    t->refused[0] = '\0';
    if (t->to == TO_API && t->identity != auth->identity.generation)
        take_identity(t, &auth->identity);
    take_proxy_login(t);
}

/* ---- how it ended ---------------------------------------------------------------------------------------------------------- */

/* Not CURLINFO_REQUEST_SIZE, which counts our question to a proxy, too. */
bool transfer_sent(const struct transfer *t)
{
    return t->sends > 0;
}

bool transfer_resent(const struct transfer *t)
{
    return t->sends > 1;
}

enum transport transfer_transport(const struct transfer *t, CURLcode code)
{
    if (code == CURLE_COULDNT_CONNECT && t->refused[0])
        return TRANSPORT_REFUSED;
    return http_transport((int)code, transfer_sent(t));
}

/* Beyond libcurl's own limit, 100 KB: before 8.6 it says so as if memory had run out. */
static bool is_endless_line(const struct transfer *t, CURLcode code)
{
#if LIBCURL_VERSION_NUM >= 0x080600
    if (code == CURLE_TOO_LARGE)
        return true;
#endif
    return code == CURLE_OUT_OF_MEMORY && transfer_sent(t);
}

/* libcurl quotes what the environment names and it cannot take, with the password. */
static bool quotes_proxy(const char *text)
{
    static const char words[] = "Unsupported proxy";
    return strncmp(text, words, sizeof words - 1) == 0;
}

void transfer_trouble(const struct transfer *t, CURLcode code, char out[HTTP_TROUBLE_BYTES])
{
    if (code == CURLE_COULDNT_CONNECT && t->refused[0])
        snprintf(out, HTTP_TROUBLE_BYTES, "the address %s is not public, and refuse_private is set",
                 t->refused);
    else if (code == CURLE_ABORTED_BY_CALLBACK)
        snprintf(out, HTTP_TROUBLE_BYTES, "the connection ended without an answer");
    else if (is_endless_line(t, code) || t->header_bytes > HTTP_HEADER_BYTES_MAX)
        snprintf(out, HTTP_TROUBLE_BYTES, "the answer is larger than 64 KiB of headers");
    else if (code == CURLE_WRITE_ERROR)
        snprintf(out, HTTP_TROUBLE_BYTES, "the answer is larger than response_body_max");
    else if (quotes_proxy(t->error))
        snprintf(out, HTTP_TROUBLE_BYTES,
                 "the proxy's address in the environment cannot be understood (it is not shown)");
    else
        snprintf(out, HTTP_TROUBLE_BYTES, "%s", t->error[0] ? t->error : curl_easy_strerror(code));
}

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
    {CURLE_WRITE_ERROR, TRANSPORT_GARBAGE, TRANSPORT_GARBAGE},   /* our caps on headers and body */
    {CURLE_OUT_OF_MEMORY, TRANSPORT_GARBAGE, TRANSPORT_CONNECT}, /* a line beyond libcurl's, before 8.6 */
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
