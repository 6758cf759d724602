/* libFuzzer: a configuration file. Whatever it holds, it is refused with a reason, or what is
 * printed of it reads back to the same. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "config/config.h"
#include "config/config_load.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct config *c = NULL, *again = NULL;
    struct buf errors = {0}, printed = {0}, printed_again = {0};
    int err;

    if (config_load_text("fuzz", (struct str){(const char *)data, size}, &c, &errors) != 0) {
        ASSERT(errors.len != 0 && c == NULL);
    } else {
        (void)config_route_for(c, STR("a.b.example"));
        (void)config_destination_for(c, STR("a.b.example"), STR("(mx1|mx2).example"));
        config_print(c, &printed);
        err = config_load_text("again", buf_str(&printed), &again, &errors);
        ASSERT(err == 0);
        config_print(again, &printed_again);
        ASSERT(str_eq(buf_str(&printed), buf_str(&printed_again)));
    }
    config_unref(c);
    config_unref(again);
    buf_done(&errors);
    buf_done(&printed);
    buf_done(&printed_again);
    return 0;
}
