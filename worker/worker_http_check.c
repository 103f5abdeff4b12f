/* Looks at the options of requests at the start: what could never work is said then, not at the first event. */
#include <arpa/inet.h>
#include <string.h>

#include "common/log.h"
#include "worker/worker_http_transfer.h"

struct address {
    char *scheme, *host;
    bool tail;        /* has a query or a fragment */
    bool credentials; /* a user or a password */
};

static void address_done(struct address *a)
{
    curl_free(a->scheme);
    curl_free(a->host);
}

static bool has_part(CURLU *parsed, CURLUPart part)
{
    char *text = NULL;
    bool found = curl_url_get(parsed, part, &text, 0) == CURLUE_OK;
    curl_free(text);
    return found;
}

static CURLUcode address_parse(const char *url, unsigned flags, struct address *ret)
{
    CURLU *parsed = curl_url();
    ENSURE(parsed);
    CURLUcode code = curl_url_set(parsed, CURLUPART_URL, url, flags);
    if (!code)
        code = curl_url_get(parsed, CURLUPART_SCHEME, &ret->scheme, 0);
    if (!code)
        code = curl_url_get(parsed, CURLUPART_HOST, &ret->host, 0);
    ret->tail = has_part(parsed, CURLUPART_QUERY) || has_part(parsed, CURLUPART_FRAGMENT);
    ret->credentials = has_part(parsed, CURLUPART_USER) || has_part(parsed, CURLUPART_PASSWORD);
    curl_url_cleanup(parsed);
    return code;
}

/* By its text, where it cannot be parsed: behind "scheme:" and however many slashes, up to the path. */
static bool looks_like_credentials(const char *url)
{
    size_t scheme = strspn(url, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+.-");
    const char *authority = url + (url[scheme] == ':' ? scheme + 1 : 0);
    authority += strspn(authority, "/\\");
    return memchr(authority, '@', strcspn(authority, "/?#")) != NULL;
}

/* Credentials in an address would stand in logs and process lists; and a wrong address that has some must not be quoted. */
static int check_no_credentials(const char *option, const char *url, const char *instead, struct err *err)
{
    struct address a = {0};
    bool parsed = address_parse(url, CURLU_NON_SUPPORT_SCHEME, &a) == CURLUE_OK;
    bool found = (parsed && a.credentials) || looks_like_credentials(url);
    address_done(&a);
    if (!found)
        return 0;
    return err_set(err, ERR_PERMANENT, "%s carries a user or password before \"@\": use %s instead", option,
                   instead);
}

/* What cannot be understood and has an "@" may have a password before it. */
static const char *quotable(const char *url)
{
    return strchr(url, '@') ? "[not shown]" : url;
}

/* The base address must be one that can be joined with a path. */
static int check_url(const char *option, const char *url, bool may_have_tail, struct err *err)
{
    struct address a = {0};
    CURLUcode code = address_parse(url, 0, &a);
    bool http = !code && (strcmp(a.scheme, "http") == 0 || strcmp(a.scheme, "https") == 0);
    bool good = http && (may_have_tail || !a.tail);
    address_done(&a);
    if (good)
        return 0;
    return err_set(err, ERR_PERMANENT, "%s \"%s\" is not an http or https address%s: %s", option,
                   quotable(url), may_have_tail ? "" : " without query",
                   code ? curl_url_strerror(code) : "expected like \"https://api.example.com/base\"");
}

static int check_proxy(const struct worker_options *o, struct err *err)
{
    struct address a = {0};
    if (*o->proxy == '\0')
        return o->proxy_password || *o->proxy_user
                   ? err_set(err, ERR_PERMANENT, "proxy_user and proxy_password are given without proxy")
                   : 0;
    if (o->refuse_private)
        return err_set(
            err, ERR_PERMANENT,
            "refuse_private cannot be kept through a proxy, which connects to addresses of its own choice");
    if (strcmp(o->proxy, "environment") == 0)
        return 0;
    if (check_no_credentials("proxy", o->proxy, "proxy_user and proxy_password_file", err) < 0)
        return -1;
    CURLUcode code = address_parse(o->proxy, CURLU_NON_SUPPORT_SCHEME, &a);
    bool known = !code && (strncmp(a.scheme, "http", 4) == 0 || strncmp(a.scheme, "socks", 5) == 0);
    address_done(&a);
    if (known && !a.tail)
        return 0;
    return err_set(err, ERR_PERMANENT,
                   "proxy \"%s\" is not an address like \"http://proxy.example.com:3128\"",
                   quotable(o->proxy));
}

/* libcurl 7.88.1 does not use connections of cleartext HTTP/2 again (curl issue 10634). */
static int check_version(const struct worker_options *o, struct err *err)
{
    if (o->http_version == 0 || strncasecmp(o->url, "https:", 6) == 0)
        return 0;
    return err_set(err, ERR_PERMANENT, "http_version 2 needs an https url: HTTP/2 without TLS is not spoken");
}

/* Only as an address: 127.api.example.com is a name like any other. */
static bool is_local(const char *host)
{
    struct in_addr ip;
    if (inet_pton(AF_INET, host, &ip) == 1)
        return ntohl(ip.s_addr) >> 24 == 127;
    return strcmp(host, "localhost") == 0 || strcmp(host, "[::1]") == 0;
}

static bool is_plain(const char *url)
{
    struct address a = {0};
    CURLUcode code = address_parse(url, 0, &a);
    bool plain = !code && strcmp(a.scheme, "http") == 0 && !is_local(a.host);
    address_done(&a);
    return plain;
}

void http_warn_of_plain_text(const struct worker *w)
{
    if (w->auth->kind != AUTH_NONE && is_plain(w->opt.url))
        LOG_WARNING("credentials are sent without encryption", LOG_STR("url", w->opt.url));
    if (w->auth->kind == AUTH_OAUTH && is_plain(w->opt.oauth_token_url))
        LOG_WARNING("credentials are sent without encryption", LOG_STR("url", w->opt.oauth_token_url));
}

int worker_http_check(const struct worker_options *o, enum auth_kind kind, struct err *err)
{
    if (check_no_credentials("url", o->url, "basic_user and basic_password_file", err) < 0 ||
        check_url("url", o->url, false, err) < 0 ||
        auth_identity_check_authorities("tls_ca_file", o->tls_ca_file, err) < 0 ||
        check_version(o, err) < 0 || check_proxy(o, err) < 0)
        return -1;
    if (kind != AUTH_OAUTH)
        return 0;
    if (check_no_credentials("oauth_token_url", o->oauth_token_url, "oauth_client_id", err) < 0 ||
        check_url("oauth_token_url", o->oauth_token_url, true, err) < 0)
        return -1;
    return auth_identity_check_authorities("oauth_ca_file", o->oauth_ca_file, err);
}
