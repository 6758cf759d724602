/* What a SOCKS proxy says: any bytes, at once or one by one, with the same end; nothing is taken
 * behind it, and every failure has words. */
#include <netinet/in.h>
#include <string.h>

#include "base/assert.h"
#include "base/socks5.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* How many bytes it takes, at most step at a time. */
static size_t run(struct socks5 *s, bool login, const uint8_t *data, size_t size, size_t step)
{
    struct sockaddr_in to = {.sin_family = AF_INET};
    uint8_t said[SOCKS5_SAY_MAX];
    size_t at = 0, n = 1;

    socks5_begin(s, login ? "user" : NULL, "password", (struct sockaddr *)&to);
    while (at < size && n > 0) {
        ASSERT(socks5_say(s, said) <= sizeof(said));
        n = socks5_hear(s, data + at, size - at < step ? size - at : step);
        at += n;
    }
    ASSERT(at == size || s->state >= SOCKS5_OPEN);
    return at;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct socks5 whole, part;
    char text[SOCKS5_TEXT];
    bool login;

    if (size == 0)
        return 0;
    login = (data[0] & 1) != 0;
    ASSERT(run(&whole, login, data + 1, size - 1, SIZE_MAX) ==
           run(&part, login, data + 1, size - 1, 1));
    ASSERT(whole.state == part.state && whole.asked == part.asked && whole.error == part.error);
    ASSERT(memcmp(&whole.bound, &part.bound, sizeof(whole.bound)) == 0);
    ASSERT((whole.state == SOCKS5_FAILED) == (whole.error != 0));
    if (whole.error != 0) {
        socks5_error_text(whole.error, text);
        ASSERT(strlen(text) > 0);
    }
    return 0;
}
