// Letters that are made of a recipe when they go out: 6 KiB, four variables, text and HTML.
#include <benchmark/benchmark.h>

#include "letter_cases.h"

template <enum letter_case which> static void Render(benchmark::State &state)
{
    size_t bytes = 0;

    letter_case_begin(which);
    for (auto _ : state)
        benchmark::DoNotOptimize(bytes = letter_case_render());
    letter_case_end();
    state.SetItemsProcessed(state.iterations());
    state.counters["bytes"] = static_cast<double>(bytes);
}

BENCHMARK(Render<LETTER_ASCII>)->Name("render_letter/7bit");
BENCHMARK(Render<LETTER_LATIN>)->Name("render_letter/quoted_printable");
BENCHMARK(Render<LETTER_JAPANESE>)->Name("render_letter/base64");
BENCHMARK_MAIN();
