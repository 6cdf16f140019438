/* What Go calls of the host: it cannot call pointers to functions itself. */
#ifndef BORDER_H
#define BORDER_H

#include <time.h>

#include "hotmerge/plugin.h"

static inline hotmerge_bytes border_bytes(const void *ptr, size_t len) {
    return (hotmerge_bytes){.ptr = (const uint8_t *)ptr, .len = len};
}

static inline hotmerge_status border_write(const hotmerge_sink *sink, const void *ptr, size_t len) {
    return sink->write(sink->context, border_bytes(ptr, len));
}

static inline void border_clear(const hotmerge_sink *sink) {
    sink->clear(sink->context);
}

static inline hotmerge_status border_content_type(const hotmerge_sink *sink, const void *ptr, size_t len) {
    return sink->content_type(sink->context, border_bytes(ptr, len));
}

static inline void border_log(const hotmerge_host_table *host, uint32_t level, const void *target,
                              size_t target_len, const void *message, size_t message_len,
                              const hotmerge_call_context *call) {
    host->log(host->context, level, border_bytes(target, target_len), border_bytes(message, message_len), call);
}

/* Now on the clock that deadlines are points of, in nanoseconds. */
static inline uint64_t border_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Where this file lies in memory: the start of its ELF header. */
extern const char __ehdr_start __attribute__((visibility("hidden")));

static inline uintptr_t border_base(void) {
    return (uintptr_t)&__ehdr_start;
}

#endif
