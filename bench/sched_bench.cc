// The scheduler: what is done for every recipient between its acceptance and its session.
#include <benchmark/benchmark.h>

#include "bench/sched_cases.h"

namespace
{

template <size_t (*work)()> void items(benchmark::State &state)
{
    size_t n = 0;

    work(); // the first call sets up
    for (auto _ : state)
        n += work();
    state.SetItemsProcessed(static_cast<int64_t>(n));
}

BENCHMARK(items<site_case_pick>)->Name("site/pick_of_1k_lanes");
BENCHMARK(items<lane_case_cycle>)->Name("lane/arrive_pick_settle");
BENCHMARK(items<lane_case_find>)->Name("lane/find_of_100k");
BENCHMARK(items<lane_case_timer>)->Name("lane/timer_of_100k");
BENCHMARK(items<lane_case_backoff>)->Name("lane/backoff_of_100k");
BENCHMARK(items<governor_case_session>)->Name("governor/session");
BENCHMARK(items<governor_case_rate>)->Name("governor/message_rate");

} // namespace

BENCHMARK_MAIN();
