/* Reads the client certificate and its key, and takes a new pair only when both fit together. */
#include "worker/auth_identity.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509_vfy.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "common/options.h"

/* An encrypted key must not ask the terminal for its password. */
static int no_password(char *into, int size, int writing, void *context)
{
    (void)into, (void)size, (void)writing, (void)context;
    return -1;
}

static int check_pair(const char *cert_pem, const char *key_pem, struct err *err)
{
    BIO *cert_bio = BIO_new_mem_buf(cert_pem, -1), *key_bio = BIO_new_mem_buf(key_pem, -1);
    ENSURE(cert_bio && key_bio);
    X509 *cert = PEM_read_bio_X509(cert_bio, NULL, no_password, NULL);
    EVP_PKEY *key = PEM_read_bio_PrivateKey(key_bio, NULL, no_password, NULL);
    int rc = 0;

    if (!cert)
        rc = err_set(err, ERR_PERMANENT, "tls_cert_file holds no certificate in PEM");
    else if (!key)
        rc = err_set(err, ERR_PERMANENT, "tls_key_file holds no private key in PEM without a password");
    else if (X509_check_private_key(cert, key) != 1)
        rc = err_set(err, ERR_PERMANENT,
                     "tls_key_file is not the key of the first certificate in tls_cert_file");
    ERR_clear_error(); /* the queue is the thread's: the next TLS connection would find it */
    X509_free(cert);
    EVP_PKEY_free(key);
    BIO_free(cert_bio);
    BIO_free(key_bio);
    return rc;
}

static void take_pair(struct auth_identity *id)
{
    auth_secret_wipe(id->key);
    free(id->cert);
    id->cert = strdup(id->cert_file.text);
    id->key = strdup(id->key_file.text);
    ENSURE(id->cert && id->key);
    id->generation++;
}

static int read_first(struct auth_secret *s, const char *option, const char *path, struct err *err)
{
    struct buf text;
    buf_init(&text, OPTIONS_TEXT_BYTES_MAX);
    int rc = options_secret_read(path, &text, err);
    if (rc < 0)
        err_prefix(err, "%s: ", option);
    else
        auth_secret_init(s, option, text.data, path);
    if (text.data)
        explicit_bzero(text.data, text.cap);
    buf_done(&text);
    return rc;
}

int auth_identity_init(struct auth_identity *id, const char *cert_path, const char *key_path, struct err *err)
{
    *id = (struct auth_identity){0};
    if (*cert_path == '\0' && *key_path == '\0')
        return 0;
    if (*cert_path == '\0' || *key_path == '\0')
        return err_set(err, ERR_PERMANENT, "%s is given without %s: a client certificate needs both",
                       *cert_path ? "tls_cert_file" : "tls_key_file",
                       *cert_path ? "tls_key_file" : "tls_cert_file");
    if (read_first(&id->cert_file, "tls_cert_file", cert_path, err) < 0 ||
        read_first(&id->key_file, "tls_key_file", key_path, err) < 0 ||
        check_pair(id->cert_file.text, id->key_file.text, err) < 0)
        return -1;
    take_pair(id);
    return 0;
}

int auth_identity_check_authorities(const char *option, const char *path, struct err *err)
{
    if (*path == '\0')
        return 0;
    if (access(path, R_OK) < 0)
        return err_set(err, ERR_PERMANENT, "%s \"%s\": %s", option, path, strerror(errno));
    X509_STORE *store = X509_STORE_new();
    ENSURE(store);
    bool good = X509_STORE_load_locations(store, path, NULL) == 1;
    X509_STORE_free(store);
    ERR_clear_error();
    return good ? 0
                : err_set(
                      err, ERR_PERMANENT,
                      "%s \"%s\" cannot be used: it is to hold the authorities' certificates in PEM, whole",
                      option, path);
}

void auth_identity_done(struct auth_identity *id)
{
    auth_secret_done(&id->cert_file);
    auth_secret_done(&id->key_file);
    auth_secret_wipe(id->key);
    free(id->cert);
    *id = (struct auth_identity){0};
}

static bool look(struct auth_secret *s)
{
    char *fresh = auth_secret_look(s);
    if (!fresh)
        return false;
    auth_secret_wipe(s->text);
    s->text = fresh;
    return true;
}

bool auth_identity_look(struct auth_identity *id)
{
    struct err err = {0};
    bool new_cert = look(&id->cert_file), new_key = look(&id->key_file);
    if (!new_cert && !new_key)
        return false;
    if (check_pair(id->cert_file.text, id->key_file.text, &err) == 0) {
        take_pair(id);
        return true;
    }
    LOG_WARNING(
        "the client certificate has changed, but is no pair with its key yet: the old pair stays in force",
        LOG_STR("error", err.message));
    return false;
}
