// Records, header scanning and classification: what is done once or twice for every message.
#include <benchmark/benchmark.h>

#include "report_cases.h"

template <size_t (*work)()> static void Case(benchmark::State &state)
{
    size_t bytes = 0;

    for (auto _ : state)
        benchmark::DoNotOptimize(bytes = work());
    state.SetItemsProcessed(state.iterations());
    state.counters["bytes"] = static_cast<double>(bytes);
}

BENCHMARK(Case<report_case_delivery>)->Name("report_line/delivery");
BENCHMARK(Case<report_case_reception>)->Name("report_line/reception");
BENCHMARK(Case<report_case_japanese>)->Name("report_line/bounce_utf8");
BENCHMARK(Case<trace_case_scan>)->Name("trace_scan/newsletter");
BENCHMARK(Case<trace_case_prepend>)->Name("trace_prepend");
BENCHMARK(Case<notice_case_build>)->Name("notice_build/4k");
BENCHMARK(Case<classify_case_bounce>)->Name("classify_bounce");
BENCHMARK(Case<rules_case_none>)->Name("rule_find/none");
BENCHMARK(Case<rules_case_last>)->Name("rule_find/last");
BENCHMARK_MAIN();
