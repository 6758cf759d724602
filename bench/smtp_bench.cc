// The protocol's hot path: bodies, replies, commands and whole transactions in memory.
#include <benchmark/benchmark.h>

#include <string>

#include "bench/smtp_cases.h"

namespace
{

template <size_t (*work)()> void items(benchmark::State &state)
{
    size_t n = 0;

    for (auto _ : state)
        n += work();
    state.SetItemsProcessed(static_cast<int64_t>(n));
}

void body_case(const char *name, size_t (*work)(int, size_t), int isa)
{
    const char *isa_name = smtp_case_isa_name(isa);

    if (isa_name == nullptr)
        return;
    for (size_t bytes : {4096UL, 51200UL}) {
        std::string full = std::string(name) + "/" + isa_name + "/" + std::to_string(bytes);

        benchmark::RegisterBenchmark(full.c_str(), [=](benchmark::State &state) {
            size_t n = 0;

            for (auto _ : state)
                n += work(isa, bytes);
            state.SetBytesProcessed(static_cast<int64_t>(n));
        });
    }
}

BENCHMARK(items<smtp_case_replies>)->Name("reply/four_of_a_message");
BENCHMARK(items<smtp_case_ehlo_reply>)->Name("reply/ehlo_10_lines");
BENCHMARK(items<smtp_case_address>)->Name("address/path");
BENCHMARK(items<smtp_case_server_envelope>)->Name("server/mail_rcpt_rset");
BENCHMARK(items<smtp_case_server_data>)->Name("server/message_data_4k");
BENCHMARK(items<smtp_case_server_bdat>)->Name("server/message_bdat_4k");
BENCHMARK(items<smtp_case_client_data>)->Name("client/transaction_data_4k");
BENCHMARK(items<smtp_case_client_bdat>)->Name("client/transaction_bdat_4k");

} // namespace

int main(int argc, char **argv)
{
    body_case("decode", smtp_case_decode, -1);
    for (int isa = 0; isa < 4; isa++) {
        body_case("decode", smtp_case_decode, isa);
        body_case("data_slices", smtp_case_slices, isa);
        body_case("bdat_scan", smtp_case_bdat_scan, isa);
        body_case("find_dot_line", smtp_case_find_dot, isa);
    }
    benchmark::Initialize(&argc, argv);
    benchmark::RunSpecifiedBenchmarks();
    return 0;
}
