/* Connections through a balancer: the header of the PROXY protocol in front of them. Sessions
 * through an SMTP proxy: XCLIENT. */
#include "base/log.h"
#include "intake/inject_message.h"

bool inject_proxy_expected(const struct inject *s)
{
    const struct config_listener *l = s->settings;

    return l->proxy_from_len > 0 && (s->peer.ss_family == AF_UNIX ||
                                     config_network_match(l->proxy_from, l->proxy_from_len,
                                                          (const struct sockaddr *)&s->peer));
}

#define COMPLAINT_MS 60000

/* A balancer that is set up wrongly gets a line a minute, however often it connects. */
static void complain(struct inject *s, const char *error)
{
    uint64_t now_ms = io_now_ms(s->worker->io);
    char balancer[PEER_TEXT_BYTES];

    if (now_ms < s->listener->proxy_complaint_ms)
        return;
    s->listener->proxy_complaint_ms = now_ms + COMPLAINT_MS;
    peer_text((const struct sockaddr *)&s->peer, NULL, balancer);
    log_warn("smtp.proxy_header_wrong",
             "listener=%s balancer=%s error=\"%s\" action=\"closed; have it send the PROXY "
             "protocol (HAProxy: send-proxy-v2), or take it out of proxy_from\"",
             s->settings->name, balancer, error);
}

void inject_proxy_late(struct inject *s)
{
    complain(s, "there was no header within 5 s");
}

enum proxy_header_status inject_proxy_input(struct inject *s, const uint8_t *data, size_t len)
{
    struct proxy_header header;
    enum proxy_header_status status;

    buf_put(&s->pending, data, len);
    status = proxy_header_parse(s->pending.data, s->pending.len, &header);
    if (status == PROXY_HEADER_BAD)
        complain(s, "what it sent is no header that is understood");
    if (status != PROXY_HEADER_DONE)
        return status;
    buf_consume(&s->pending, header.len);
    if (s->pending.len == 0)
        buf_done(&s->pending);
    s->proxied = true;
    s->nobody = header.client.ss_family == AF_UNSPEC;
    if (!s->nobody)
        s->peer = header.client;
    return status;
}

/* --- XCLIENT --- */

/* Judged anew once the session is another's: whom a proxy brings is no proxy. */
bool inject_may_name_client(const struct inject *s)
{
    const struct config_listener *l = s->settings;

    return !s->nobody && config_network_match(l->xclient_from, l->xclient_from_len,
                                              (const struct sockaddr *)&s->peer);
}

static struct str decoded(struct str xtext, char *room, size_t cap)
{
    ptrdiff_t len = smtp_xtext_decode(xtext, room, cap);

    return (struct str){room, len < 0 ? 0 : (size_t)len};
}

static bool is_unknown(struct str value)
{
    return str_eq_nocase(value, STR("[UNAVAILABLE]")) || str_eq_nocase(value, STR("[TEMPUNAVAIL]"));
}

void inject_xclient(struct inject *s)
{
    const struct smtp_xclient *x = &s->server.xclient;
    char address_room[64], port_room[64];
    struct str address = decoded(x->address, address_room, sizeof(address_room));
    struct str port = decoded(x->port, port_room, sizeof(port_room));
    bool unknown = is_unknown(address);
    struct sockaddr_storage client = s->peer;

    if (str_starts_nocase(address, STR("IPV6:")))
        address = (struct str){address.ptr + 5, address.len - 5};
    if (x->address.len > 0 && !unknown &&
        !proxy_client_parse(address, is_unknown(port) ? STR("") : port, &client)) {
        smtp_server_answer(&s->server, inject_out(s), "501 5.5.4 XCLIENT: ADDR or PORT is none");
        return;
    }
    log_debug("smtp.xclient", "session=%s proxy=%s client=\"%.*s\"", s->id, s->peer_text,
              STR_FMT(address));
    smtp_server_answer(&s->server, inject_out(s), NULL);
    inject_admit_other(s, unknown ? NULL : &client);
}
