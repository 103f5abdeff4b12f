/* OAuth 2.0 client credentials: the form, the answer, and when the token is fetched again. */
#include "worker/auth_oauth.h"

#include <jansson.h>
#include <string.h>

#include "common/clock.h"

#define LIFE_UNKNOWN_NS (300 * NS_PER_S) /* RFC 6749 5.1 only recommends expires_in */
#define LIFE_MAX_S (7 * 86400.0)
#define AHEAD_MAX_NS (60 * NS_PER_S)
#define PAUSE_MIN_NS NS_PER_S
#define PAUSE_MAX_NS (30 * NS_PER_S)
#define ERROR_WORD_BYTES_MAX 64

/* ---- the question -------------------------------------------------------------------------------------------------------- */

static void form_add(struct buf *form, const char *name, const char *value)
{
    if (*value == '\0')
        return;
    (void)buf_printf(form, "&%s=", name);
    (void)buf_percent(form, value, strlen(value)); /* %20 and '+' mean the same in a form */
}

int auth_oauth_form(const struct auth_oauth_request *req, struct buf *form, struct err *err)
{
    buf_reset(form);
    (void)buf_puts(form, "grant_type=client_credentials");
    form_add(form, "scope", req->scope);
    form_add(form, "audience", req->audience);
    if (req->client_auth == AUTH_CLIENT_POST) {
        form_add(form, "client_id", req->client_id);
        form_add(form, "client_secret", req->client_secret);
    }
    return form->failed
               ? err_set(err, ERR_PERMANENT, "the token request is longer than %zu bytes", form->limit)
               : 0;
}

/* RFC 6749 2.3.1: both are encoded as in a form before they become a user and a password. */
int auth_oauth_client_value(const struct auth_oauth_request *req, struct buf *value, struct err *err)
{
    struct buf id, secret;
    int rc = 0;

    buf_reset(value);
    if (req->client_auth == AUTH_CLIENT_POST)
        return 0;
    buf_init(&id, AUTH_SECRET_BYTES_MAX);
    buf_init(&secret, AUTH_SECRET_BYTES_MAX);
    if (buf_percent(&id, req->client_id, strlen(req->client_id)) < 0 ||
        buf_percent(&secret, req->client_secret, strlen(req->client_secret)) < 0)
        rc = err_set(err, ERR_PERMANENT,
                     "oauth_client_id or oauth_client_secret is longer than %d bytes encoded",
                     AUTH_SECRET_BYTES_MAX);
    if (rc == 0)
        rc = auth_basic_value(buf_str(&id), buf_str(&secret), value, err);
    if (secret.data)
        explicit_bzero(secret.data, secret.cap);
    buf_done(&id);
    buf_done(&secret);
    return rc;
}

/* ---- the answer ---------------------------------------------------------------------------------------------------------- */

/* RFC 6749 5.2 "error" is a word from a list: anything else is not repeated, it might be what we sent. */
static bool is_error_word(const char *s)
{
    size_t len = strlen(s);
    return len > 0 && len <= ERROR_WORD_BYTES_MAX && s[strspn(s, "abcdefghijklmnopqrstuvwxyz_")] == '\0';
}

static int answer_refused(int status, const json_t *root, struct err *err)
{
    const char *word = json_string_value(json_object_get(root, "error"));
    return err_set(err, ERR_TEMPORARY, "it answered %d%s%s", status, word && is_error_word(word) ? " " : "",
                   word && is_error_word(word) ? word : "");
}

static int answer_life(const json_t *root, int64_t *ret_life_ns, struct err *err)
{
    const json_t *given = json_object_get(root, "expires_in");
    double seconds = 0;

    *ret_life_ns = LIFE_UNKNOWN_NS;
    if (!given || json_is_null(given))
        return 0;
    if (json_is_number(given))
        seconds = json_number_value(given);
    else if (json_is_string(given)) /* some write it as text */
        seconds = strtod(json_string_value(given), NULL);
    if (!(seconds > 0))
        return err_set(err, ERR_TEMPORARY, "its expires_in is not a positive number");
    if (seconds < 1)
        seconds = 1;
    *ret_life_ns = (int64_t)((seconds < LIFE_MAX_S ? seconds : LIFE_MAX_S) * (double)NS_PER_S);
    return 0;
}

/* RFC 6750 2.1 b64token; what else a header can carry is let through. */
static int answer_token(const json_t *root, struct buf *value, struct err *err)
{
    const char *token = json_string_value(json_object_get(root, "access_token"));
    const char *type = json_string_value(json_object_get(root, "token_type"));

    if (!token || *token == '\0')
        return err_set(err, ERR_TEMPORARY, "it answered without an access_token");
    if (type && strcasecmp(type, "bearer") != 0)
        return err_set(err, ERR_TEMPORARY, "its token is not of the type bearer");
    for (const char *s = token; *s; s++)
        if (*s <= 0x20 || *s > 0x7E)
            return err_set(err, ERR_TEMPORARY, "its token has characters that no header can carry");
    if (strlen(token) > AUTH_TOKEN_BYTES_MAX)
        return err_set(err, ERR_TEMPORARY, "its token is longer than %d bytes", AUTH_TOKEN_BYTES_MAX);
    buf_reset(value);
    int r = buf_printf(value, "Bearer %s", token);
    ENSURE(r == 0);
    return 0;
}

int auth_oauth_answer(int status, struct slice body, struct buf *value, int64_t *ret_life_ns, struct err *err)
{
    json_t *root = body.len ? json_loadb(body.data, body.len, 0, NULL) : NULL;
    int64_t life_ns = 0;
    int rc = 0;

    if (status < 200 || status > 299)
        rc = answer_refused(status, root, err);
    else if (!json_is_object(root))
        rc = err_set(err, ERR_TEMPORARY, "it answered %d with something that is not a JSON object", status);
    if (rc == 0)
        rc = answer_life(root, &life_ns, err);
    if (rc == 0)
        rc = answer_token(root, value, err);
    if (rc == 0)
        *ret_life_ns = life_ns;
    json_decref(root);
    return rc;
}

/* ---- the life of the token ------------------------------------------------------------------------------------------------- */

bool auth_token_good(const struct auth_token *t, int64_t now)
{
    return t->usable && now < t->expires_at;
}

bool auth_token_should_fetch(const struct auth_token *t, int64_t now)
{
    if (t->fetching)
        return false;
    if (!auth_token_good(t, now))
        return true; /* whoever waits for it is paced by the breaker */
    return now >= t->refresh_at && now >= t->not_before;
}

void auth_token_asked(struct auth_token *t)
{
    ENSURE(!t->fetching);
    t->fetching = true;
}

/* A token is not used in its last tenth: it must still be good when the request has arrived. */
void auth_token_came(struct auth_token *t, int64_t now, int64_t life_ns)
{
    int64_t ahead = life_ns / 5 < AHEAD_MAX_NS ? life_ns / 5 : AHEAD_MAX_NS;

    t->fetching = false;
    t->usable = true;
    t->generation++;
    t->refresh_at = now + life_ns - ahead;
    t->expires_at = now + life_ns - ahead / 2;
    t->not_before = 0;
    t->failures = 0;
    t->fetched++;
}

void auth_token_missed(struct auth_token *t, int64_t now)
{
    int64_t pause = PAUSE_MIN_NS << (t->failures < 5 ? t->failures : 5);

    t->fetching = false;
    t->not_before = now + (pause < PAUSE_MAX_NS ? pause : PAUSE_MAX_NS);
    t->failures++;
    t->failed++;
}

void auth_token_worked(struct auth_token *t, uint64_t generation)
{
    t->worked = generation;
}

bool auth_token_is_known_to_work(const struct auth_token *t)
{
    return t->usable && t->generation > 0 && t->worked == t->generation;
}

void auth_token_refused(struct auth_token *t, uint64_t generation)
{
    if (generation == t->generation)
        t->usable = false;
}
