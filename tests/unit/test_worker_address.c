/* Which addresses are public: the edges of each range, and IPv4 in IPv6's clothes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdbool.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/un.h>

#include "common/compiler.h"
#include "worker/worker_address.h"

static bool is_private(const char *text)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
    char shown[ADDRESS_TEXT_BYTES];
    if (inet_pton(AF_INET, text, &v4.sin_addr) == 1) {
        assert_string_equal(address_text((struct sockaddr *)&v4, shown), text);
        return address_is_private((struct sockaddr *)&v4);
    }
    assert_int_equal(inet_pton(AF_INET6, text, &v6.sin6_addr), 1);
    return address_is_private((struct sockaddr *)&v6);
}

static void private_and_reserved_addresses_are_told(void **state)
{
    (void)state;
    static const char *const all[] = {"0.0.0.0",
                                      "0.255.255.255",
                                      "10.0.0.0",
                                      "10.255.255.255",
                                      "100.64.0.0",
                                      "100.127.255.255",
                                      "127.0.0.1",
                                      "127.255.255.255",
                                      "169.254.169.254",
                                      "172.16.0.0",
                                      "172.31.255.255",
                                      "192.0.0.1",
                                      "192.0.2.1",
                                      "192.88.99.1",
                                      "192.168.0.0",
                                      "192.168.255.255",
                                      "198.18.0.0",
                                      "198.19.255.255",
                                      "198.51.100.9",
                                      "203.0.113.9",
                                      "224.0.0.1",
                                      "239.255.255.255",
                                      "240.0.0.1",
                                      "255.255.255.255",
                                      "::",
                                      "::1",
                                      "::7f00:1",
                                      "::ffff:127.0.0.1",
                                      "::ffff:10.1.2.3",
                                      "::ffff:169.254.169.254",
                                      "64:ff9b::10.0.0.1",
                                      "64:ff9b::7f00:1",
                                      "64:ff9b:1::1",
                                      "100::1",
                                      "2001::1",
                                      "2001:1ff::1",
                                      "2001:db8::1",
                                      "2002:7f00:1::",
                                      "2002:a00:1::1",
                                      "3fff::1",
                                      "3fff:fff::1",
                                      "fc00::1",
                                      "fd12:3456::1",
                                      "fdff:ffff::1",
                                      "fe80::1",
                                      "febf::1",
                                      "fec0::1",
                                      "ff02::1",
                                      "4000::1",
                                      "1fff::1",
                                      "5f00::1"};
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        if (!is_private(all[i]))
            fail_msg("%s counts as public", all[i]);
}

static void public_addresses_are_let_through(void **state)
{
    (void)state;
    static const char *const all[] = {
        "1.1.1.1",          "8.8.8.8",         "9.255.255.255",   "11.0.0.0",
        "100.63.255.255",   "100.128.0.0",     "126.255.255.255", "128.0.0.0",
        "169.253.255.255",  "169.255.0.0",     "172.15.255.255",  "172.32.0.0",
        "192.0.1.1",        "192.0.3.1",       "192.167.255.255", "192.169.0.0",
        "198.17.255.255",   "198.20.0.0",      "223.255.255.255", "::ffff:8.8.8.8",
        "64:ff9b::8.8.8.8", "2002:808:808::1", "2001:200::1",     "2001:4860:4860::8888",
        "2606:4700::1111",  "2a00:1450::1",    "3ffe::1",         "3fff:1000::1"};
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        if (is_private(all[i]))
            fail_msg("%s counts as private", all[i]);
}

static void an_unknown_family_is_private(void **state)
{
    (void)state;
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    char shown[ADDRESS_TEXT_BYTES];
    assert_true(address_is_private((struct sockaddr *)&un));
    assert_string_equal(address_text((struct sockaddr *)&un, shown), "?");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(private_and_reserved_addresses_are_told),
        cmocka_unit_test(public_addresses_are_let_through),
        cmocka_unit_test(an_unknown_family_is_private),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
