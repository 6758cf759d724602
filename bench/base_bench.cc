// Timer wheel, checksums, hashes, JSON strings and the bare cost of a turn.
#include <benchmark/benchmark.h>

#include "bench/base_cases.h"

namespace
{

template <size_t (*work)()> void items(benchmark::State &state)
{
    size_t n = 0;

    for (auto _ : state)
        n += work();
    state.SetItemsProcessed(static_cast<int64_t>(n));
}

template <size_t (*work)()> void bytes(benchmark::State &state)
{
    size_t n = 0;

    for (auto _ : state)
        n += work();
    state.SetBytesProcessed(static_cast<int64_t>(n));
}

BENCHMARK(items<wheel_case_rearm>)->Name("wheel/rearm_of_100k");
BENCHMARK(items<wheel_case_advance>)->Name("wheel/advance_1ms_of_100k");
BENCHMARK(bytes<crc_case_64>)->Name("crc32c/64");
BENCHMARK(bytes<crc_case_4k>)->Name("crc32c/4k");
BENCHMARK(bytes<crc_case_64k>)->Name("crc32c/64k");
BENCHMARK(bytes<hash_case_16>)->Name("hash/16");
BENCHMARK(bytes<hash_case_64>)->Name("hash/64");
BENCHMARK(bytes<json_case_ascii_1k>)->Name("json/ascii_1k");
BENCHMARK(bytes<json_case_japanese_1k>)->Name("json/japanese_1k");
BENCHMARK(bytes<json_case_controls_1k>)->Name("json/controls_1k");
BENCHMARK(items<pool_case_cycle>)->Name("pool/get_put_512");
BENCHMARK(items<msgid_case_next>)->Name("msgid/next");
BENCHMARK(items<date_case_rfc5322>)->Name("date/rfc5322");
BENCHMARK(items<io_case_turn>)->Name("io/empty_turn");
BENCHMARK(items<io_case_wake_awake>)->Name("io/wake_awake");

} // namespace

BENCHMARK_MAIN();
