/* Any text: libjansson takes it too and makes the same tree, or refuses it as well; or it is beyond
 * the limits, or has a NUL, which libjansson overlooks behind some numbers. */
#include <string.h>

#include <jansson.h>

#include "base/assert.h"
#include "mail/json_read.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define DEPTH  16
#define VALUES 500

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct json_read_error error = {0};
    size_t values;
    json_t *got = json_read((struct str){(const char *)data, size}, DEPTH, VALUES, &values, &error);
    json_t *want = json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES, NULL);

    if (got != NULL) {
        ASSERT(want != NULL && json_equal(got, want) && values <= VALUES);
    } else {
        ASSERT(error.line > 0 && error.column > 0 && error.why[0] != '\0');
        ASSERT(error.kind != JSON_READ_NOT_JSON || want == NULL || memchr(data, 0, size) != NULL);
    }
    json_decref(got);
    json_decref(want);
    return 0;
}
