/* Connections through a balancer: the header of the PROXY protocol in front of them. */
#include "base/log.h"
#include "intake/inject_message.h"

bool inject_proxy_expected(const struct inject *s)
{
    const struct config_listener *l = s->settings;

    return l->proxy_from_len > 0 && (s->peer.ss_family == AF_UNIX ||
                                     config_network_match(l->proxy_from, l->proxy_from_len,
                                                          (const struct sockaddr *)&s->peer));
}

/* One line for a balancer that is set up wrongly, however often it connects. */
static void complain(struct inject *s)
{
    char balancer[PEER_TEXT_BYTES];

    if (s->listener->proxy_complained)
        return;
    s->listener->proxy_complained = true;
    peer_text((const struct sockaddr *)&s->peer, NULL, balancer);
    log_warn("smtp.proxy_header_wrong",
             "listener=%s balancer=%s action=\"closed; have it send the PROXY protocol (HAProxy: "
             "send-proxy-v2), or take it out of proxy_from\"",
             s->settings->name, balancer);
}

enum proxy_header_status inject_proxy_input(struct inject *s, const uint8_t *data, size_t len)
{
    struct proxy_header header;
    enum proxy_header_status status;

    buf_put(&s->pending, data, len);
    status = proxy_header_parse(s->pending.data, s->pending.len, &header);
    if (status == PROXY_HEADER_BAD)
        complain(s);
    if (status != PROXY_HEADER_DONE)
        return status;
    buf_consume(&s->pending, header.len);
    if (s->pending.len == 0)
        buf_done(&s->pending);
    s->listener->proxy_complained = false;
    s->proxied = true;
    s->nobody = header.client.ss_family == AF_UNSPEC;
    if (!s->nobody)
        s->peer = header.client;
    return status;
}
