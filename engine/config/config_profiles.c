/* The mailbox providers that are shipped: how names of their exchangers end, and what is known of
 * how much they take. Data alone; config_provider.c works with it.
 *
 * Names of exchangers are those of MX records in November 2026. Each value has its origin: a page
 * of the provider's with its date, the practice of others who send much, or our guess. Where
 * nothing is known there is no value, and what `destinations` say of "*" holds. */
#include "config/config_profiles.h"

#include "base/assert.h"

#define KUMO      "practice: KumoMTA's shaping.toml, copy of November 2026"
#define KUMO_USER "practice: KumoMTA's community/shaping.toml, copy of November 2026"
#define CARRIER_S 120 /* carriers refuse at the top of the hour, when everybody sends */

/* Google counts by "the MX record domain, not the domain in the recipient address" (Email sender
 * guidelines FAQ, as of March 2026), and so is counted at all of them. Warm-up counts what is sent
 * to Microsoft together, as it did before the two were told apart. */
const struct shipped_provider shipped_providers[] = {
    {.name = "google",
     .mx = "google.com googlemail.com",
     .values = {{"sessions_max", "5", KUMO}, {"session_messages_max", "50", KUMO}}},
    {.name = "microsoft",
     .mx = "outlook.com hotmail.com",
     .values = {{"sessions_max", "5", KUMO}, {"session_messages_max", "50", KUMO}},
     .pace = 50},
    {.name = "microsoft365",
     .mx = "mail.protection.outlook.com mx.microsoft",
     /* The sessions that others allow themselves are for each customer's exchangers. */
     .values = {{"session_messages_max", "50", KUMO}},
     .warmup = "microsoft",
     .pace = 50},
    {.name = "yahoo", .mx = "yahoodns.net"}, /* AOL, AT&T and Verizon too */
    {.name = "apple", .mx = "icloud.com me.com mac.com", .top_of_hour_s = CARRIER_S},
    {.name = "comcast",
     .mx = "comcast.net",
     .values = {{"sessions_max", "25", KUMO_USER}, {"session_messages_max", "1000", KUMO_USER}}},
    {.name = "docomo",
     .mx = "docomo.ne.jp",
     /* At most 100 recipients a session. */
     .values = {{"recipients_max", "100", "page: docomo.ne.jp, mass_send, copy of November 2026"},
                {"session_messages_max", "100",
                 "guess: of 100 recipients a session, where each message has one"}},
     .top_of_hour_s = CARRIER_S},
    {.name = "au",
     .mx = "au.com ezweb.ne.jp",
     .values = {{"recipients_max", "100",
                 "page: au.com/mobile/service/attention/specification, copy of November 2026"}},
     .top_of_hour_s = CARRIER_S},
    {.name = "softbank",
     .mx = "softbank.jp softbank.ne.jp vodafone.ne.jp",
     .values = {{"recipients_max", "100", "page: creation.mb.softbank.jp, 2008"}},
     .top_of_hour_s = CARRIER_S},
    {.name = "ymobile", .mx = "ymobile.ne.jp emnet.ne.jp", .top_of_hour_s = CARRIER_S},
    {.name = "yahoo_japan",
     .mx = "yahoo.co.jp ybb.ne.jp",
     .values = {{"sessions_max", "2", KUMO_USER},
                {"session_messages_max", "20", KUMO_USER},
                {"rate", "10/s", KUMO_USER}}},
    {.name = "rakuten", .mx = "rakuten.co.jp rakuten.jp rakuten.ne.jp"},
    {.name = "plala", .mx = "plala.or.jp"},
    {.name = "ocn", .mx = "ocn.ad.jp ocn.ne.jp"},
    {.name = "biglobe", .mx = "biglobe.ne.jp"},
    {.name = "nifty", .mx = "nifty.com"},
    {.name = "so_net", .mx = "so-net.ne.jp"},
    {.name = "jcom", .mx = "zaq.ne.jp jcom.home.ne.jp"},
    {.name = "gmx",
     .mx = "gmx.net gmx.com web.de",
     .values = {{"sessions_max", "4", KUMO_USER}, {"session_messages_max", "20", KUMO_USER}}},
    {.name = "t_online", .mx = "t-online.de"},
    {.name = "orange",
     .mx = "orange.fr wanadoo.fr",
     .values = {{"sessions_max", "2", KUMO_USER}, {"session_messages_max", "100", KUMO_USER}}},
    {.name = "qq",
     .mx = "qq.com",
     .values = {{"sessions_max", "4", KUMO_USER}, {"session_messages_max", "8", KUMO_USER}}},
    {.name = "netease",
     .mx = "netease.com 163.com 126.com",
     .values = {{"sessions_max", "4", KUMO_USER}, {"session_messages_max", "7", KUMO_USER}}},
    {.name = "naver", .mx = "naver.com"},
    {.name = "yandex", .mx = "yandex.ru yandex.net"},
    {.name = "mail_ru", .mx = "mail.ru"},
    {.name = "zoho", .mx = "zoho.com zoho.eu"},
    {.name = "mimecast",
     .mx = "mimecast.com",
     .values = {{"sessions_max", "10", KUMO_USER}, {"session_messages_max", "100", KUMO_USER}}},
    {.name = "proofpoint", .mx = "pphosted.com ppe-hosted.com"},
    {.name = "barracuda",
     .mx = "barracudanetworks.com",
     .values = {{"sessions_max", "10", KUMO_USER}, {"session_messages_max", "15", KUMO_USER}}},
};
const size_t shipped_providers_len = ARRAY_LEN(shipped_providers);

const struct shipped_provider *shipped_provider_find(struct str name)
{
    for (size_t i = 0; i < shipped_providers_len; i++)
        if (str_eq(str_of(shipped_providers[i].name), name))
            return &shipped_providers[i];
    return NULL;
}

const struct shipped_value *shipped_value_find(const struct shipped_provider *p, const char *key)
{
    for (size_t i = 0; p != NULL && i < SHIPPED_VALUES_MAX && p->values[i].key != NULL; i++)
        if (strcmp(p->values[i].key, key) == 0)
            return &p->values[i];
    return NULL;
}
