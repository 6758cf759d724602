// Google Benchmark harness for the queue: record codec, accept and settle, load.
// CPU figures of the queue cases are of the whole process: worker's side, committer, loader,
// syncer.
#include <benchmark/benchmark.h>

#include "bench/queue_cases.h"

namespace
{

template <size_t (*run)()> void codec(benchmark::State &state)
{
    size_t bytes = 0;

    for (auto _ : state)
        bytes += run();
    state.SetBytesProcessed(static_cast<int64_t>(bytes));
}
BENCHMARK(codec<queue_case_row_encode>)->Name("codec/row_encode");
BENCHMARK(codec<queue_case_row_decode>)->Name("codec/row_decode");
BENCHMARK(codec<queue_case_content_encode>)->Name("codec/content_encode_4k");
BENCHMARK(codec<queue_case_content_decode>)->Name("codec/content_decode_4k");

// items: messages, each accepted and settled. Arguments: messages in flight, record bytes.
void accept_settle(benchmark::State &state)
{
    auto n = static_cast<size_t>(state.range(0));
    auto *c = queue_case_open(n, 4096, static_cast<size_t>(state.range(1)));

    for (auto _ : state) {
        queue_case_accept(c, n);
        queue_case_settle(c, n);
    }
    state.SetItemsProcessed(state.iterations() * state.range(0));
    state.counters["cpu_per_message"] =
        benchmark::Counter(static_cast<double>(state.iterations() * state.range(0)),
                           benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
    queue_case_close(c);
}
BENCHMARK(accept_settle)
    ->ArgsProduct({{1, 64, 512}, {0, 650}})
    ->MeasureProcessCPUTime()
    ->Unit(benchmark::kMicrosecond);

void load(benchmark::State &state)
{
    auto n = static_cast<size_t>(state.range(0));
    auto *c = queue_case_open(n, 4096, 0);

    queue_case_accept(c, n);
    for (auto _ : state)
        queue_case_load(c, n);
    state.SetItemsProcessed(state.iterations() * state.range(0));
    queue_case_settle(c, n);
    queue_case_close(c);
}
BENCHMARK(load)->Arg(4096)->MeasureProcessCPUTime()->Unit(benchmark::kMicrosecond);

} // namespace

BENCHMARK_MAIN();
