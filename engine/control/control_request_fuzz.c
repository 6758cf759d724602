/* libFuzzer: a request of the control channel, and its filter against a row. */
#include <stddef.h>
#include <stdint.h>

#include "control/control_request.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct queue_row_view row = {.queue = STR("example.com"),
                                       .sender = STR("a@example.org"),
                                       .address = STR("b@example.com"),
                                       .last_error = STR("450 4.2.1 mailbox full"),
                                       .created_ms = 1,
                                       .attempts = 2};
    struct control_request r;
    struct control_refusal why;

    if (control_request_parse((struct str){(const char *)data, size}, &r, &why) != 0) {
        ASSERT(why.message[0] != 0);
        return 0;
    }
    (void)control_filter_match(&r.filter, &row, 1000);
    (void)control_filter_lane(&r.filter);
    control_request_done(&r);
    return 0;
}
