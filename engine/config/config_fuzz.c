/* libFuzzer: a configuration file. Whatever it holds, it is refused with a reason, or what is
 * printed of it reads back to the same. Each printed line names the line it was read from, so what
 * is compared are the two that were read from a printed file. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "config/config.h"
#include "config/config_load.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct config *c = NULL, *again[2] = {NULL, NULL};
    struct buf errors = {0}, printed[3] = {{0}, {0}, {0}};

    if (config_load_text("fuzz", (struct str){(const char *)data, size}, &c, &errors) != 0) {
        ASSERT(errors.len != 0 && c == NULL);
    } else {
        (void)config_route_for(c, STR("a.b.example"));
        (void)config_destination_for(c, STR("a.b.example"), STR("(mx1|mx2).example"));
        config_print(c, &printed[0]);
        for (int i = 0; i < 2; i++) {
            int err = config_load_text("again", buf_str(&printed[i]), &again[i], &errors);
            ASSERT(err == 0);
            config_print(again[i], &printed[i + 1]);
        }
        ASSERT(str_eq(buf_str(&printed[1]), buf_str(&printed[2])));
    }
    config_unref(c);
    buf_done(&errors);
    for (int i = 0; i < 2; i++)
        config_unref(again[i]);
    for (int i = 0; i < 3; i++)
        buf_done(&printed[i]);
    return 0;
}
