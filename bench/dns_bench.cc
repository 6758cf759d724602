// The DNS cache and what a new name costs us, resolver and network excluded.
#include <benchmark/benchmark.h>

#include "bench/dns_cases.h"

namespace
{

template <size_t (*work)()> void items(benchmark::State &state)
{
    size_t n = 0;

    for (auto _ : state)
        n += work();
    state.SetItemsProcessed(static_cast<int64_t>(n));
}

void hit(benchmark::State &state)
{
    items<dns_case_hit>(state);
    state.counters["bytes_per_domain"] = static_cast<double>(dns_case_bytes());
}

BENCHMARK(hit)->Name("dns/cached");
BENCHMARK(items<dns_case_hit_hot>)->Name("dns/cached_hot");
BENCHMARK(items<dns_case_lookup_hit>)->Name("dns/lookup_hit");
BENCHMARK(items<dns_case_miss>)->Name("dns/miss_insert_evict");
BENCHMARK(items<dns_case_packet>)->Name("dns/packet_5_mx");
BENCHMARK(items<dns_case_choose>)->Name("dns/choose_5_mx");

} // namespace

BENCHMARK_MAIN();
