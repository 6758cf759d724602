/* Assertions that stay on in release builds.
 *
 * ASSERT() is for bugs in this program and nothing else: a local operating error is an int
 * (0 or -errno) and remote behaviour is a value. Nothing from the network may trip one. */
#ifndef HAYAUMA_BASE_ASSERT_H
#define HAYAUMA_BASE_ASSERT_H

_Noreturn void assert_failed(const char *expr, const char *file, int line, const char *func);

#define ASSERT(expr)                                                                               \
    (__builtin_expect(!!(expr), 1) ? (void)0 : assert_failed(#expr, __FILE__, __LINE__, __func__))

#define MUST_USE                        __attribute__((warn_unused_result))
#define CONTAINER_OF(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))
#define ARRAY_LEN(a)                    (sizeof(a) / sizeof((a)[0]))

#endif
