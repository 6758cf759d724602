#include "worker/counters.h"

#include "worker/shared.h"
#include "worker/worker.h"

static const struct {
    const char *name;
    size_t offset;
} totals[] =
    {
#define TOTAL(name)                                                                                \
    {                                                                                              \
#name, offsetof(struct worker_counters, name)                                              \
    }
        TOTAL(received_messages),
        TOTAL(received_recipients),
        TOTAL(received_bytes),
        TOTAL(rejected),
        TOTAL(accept_failures),
        TOTAL(delivered),
        TOTAL(deferred),
        TOTAL(failed),
        TOTAL(expired),
        TOTAL(cancelled),
        TOTAL(lost),
        TOTAL(notices),
        TOTAL(notices_failed),
        TOTAL(connects),
        TOTAL(connect_failures),
        TOTAL(loads),
        TOTAL(loaded),
        TOTAL(transactions),
        TOTAL(sessions_in_total),
        TOTAL(sessions_out_total),
        TOTAL(tls_out),
        TOTAL(tls_out_resumed),
        TOTAL(tls_out_dane),
        TOTAL(tls_out_failures),
        TOTAL(tls_out_plaintext),
        TOTAL(tls_in),
        TOTAL(tls_in_resumed),
        TOTAL(tls_in_failures),
        TOTAL(logins),
        TOTAL(logins_failed),
        TOTAL(logins_out_failed),
        TOTAL(signed_messages),
        TOTAL(sign_failures),
        TOTAL(sts_fetches),
        TOTAL(sts_fetch_failures),
        TOTAL(sts_tested_failures),
#undef TOTAL
},
  gauges[] = {
#define GAUGE(name)                                                                                \
    {                                                                                              \
#name, offsetof(struct worker_counters, name)                                              \
    }
      GAUGE(sessions_in),  GAUGE(sessions_out), GAUGE(connecting), GAUGE(lanes),
      GAUGE(lanes_absent), GAUGE(sites),        GAUGE(in_memory),
#undef GAUGE
};

void counters_visit(struct shared *shared,
                    void (*put)(void *to, const char *name, uint64_t value, bool gauge), void *to)
{
    for (size_t i = 0; i < ARRAY_LEN(totals); i++) {
        uint64_t sum = 0;

        for (uint32_t w = 0; w < shared->workers_len; w++) {
            char *base = (char *)&shared->workers[w].counters;

            sum += atomic_load_explicit((_Atomic uint64_t *)(void *)(base + totals[i].offset),
                                        memory_order_relaxed);
        }
        put(to, totals[i].name, sum, false);
    }
    for (size_t i = 0; i < ARRAY_LEN(gauges); i++) {
        uint64_t sum = 0;

        for (uint32_t w = 0; w < shared->workers_len; w++) {
            char *base = (char *)&shared->workers[w].counters;

            sum += atomic_load_explicit((_Atomic uint32_t *)(void *)(base + gauges[i].offset),
                                        memory_order_relaxed);
        }
        put(to, gauges[i].name, sum, true);
    }
    put(to, "http_requests", atomic_load_explicit(&shared->http.requests, memory_order_relaxed),
        false);
    put(to, "http_refused", atomic_load_explicit(&shared->http.refused, memory_order_relaxed),
        false);
    put(to, "http_connections",
        atomic_load_explicit(&shared->http.connections, memory_order_relaxed), true);
    put(to, "suppressed_recipients",
        atomic_load_explicit(&shared->suppressions.stopped, memory_order_relaxed), false);
    put(to, "memory_bytes", message_bytes_alive(), true);
    put(to, "intake_bytes", atomic_load_explicit(&shared->intake_bytes, memory_order_relaxed),
        true);
}
