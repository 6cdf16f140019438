/* The smallest plugin in C with state: a tally.
 *
 * Methods: `add` adds the decimal number in the request (1 if it is empty) and answers with the sum, `get`
 * answers with the sum. */

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hotmerge/plugin.h"

/* Longest request of `add`, with the NUL that C wants behind it. */
enum { NUMBER = 32 };

typedef struct {
    atomic_int_fast64_t sum;
} tally;

static hotmerge_bytes text(const char *text) {
    return (hotmerge_bytes){.ptr = (const uint8_t *)text, .len = strlen(text)};
}

static int is(hotmerge_bytes bytes, const char *text) {
    return bytes.len == strlen(text) && memcmp(bytes.ptr, text, bytes.len) == 0;
}

/* Says why, and returns the status. */
static hotmerge_status because(const hotmerge_sink *sink, hotmerge_status status, const char *why) {
    sink->clear(sink->context);
    sink->write(sink->context, text(why));
    return status;
}

static hotmerge_status create(const hotmerge_host_table *host, hotmerge_bytes config, void **instance,
                              const hotmerge_sink *error) {
    (void)host, (void)config;
    tally *new = calloc(1, sizeof *new);
    if (new == NULL) {
        return because(error, HOTMERGE_STATUS_FAILED, "there is no memory left");
    }
    *instance = new;
    return HOTMERGE_STATUS_OK;
}

static hotmerge_status self_check(void *instance, const hotmerge_sink *error) {
    (void)instance, (void)error;
    return HOTMERGE_STATUS_OK;
}

/* The step that a request names. */
static int step(hotmerge_bytes request, int64_t *step) {
    char number[NUMBER];
    char *end;
    if (request.len == 0) {
        *step = 1;
        return 1;
    }
    if (request.len >= sizeof number) {
        return 0;
    }
    memcpy(number, request.ptr, request.len);
    number[request.len] = '\0';
    *step = strtoll(number, &end, 10);
    return end != number && *end == '\0';
}

static hotmerge_status call(void *instance, const hotmerge_call_context *context, hotmerge_bytes method,
                            hotmerge_bytes request, const hotmerge_sink *reply) {
    (void)context;
    tally *it = instance;
    int64_t by = 0;
    if (is(method, "add")) {
        if (!step(request, &by)) {
            return because(reply, HOTMERGE_STATUS_BAD_REQUEST,
                           "`add` takes a decimal number, or nothing for 1");
        }
    } else if (!is(method, "get")) {
        return HOTMERGE_STATUS_NO_METHOD;
    }
    char sum[NUMBER];
    snprintf(sum, sizeof sum, "%" PRId64, (int64_t)atomic_fetch_add(&it->sum, by) + by);
    reply->content_type(reply->context, text("text/plain; charset=utf-8"));
    return reply->write(reply->context, text(sum));
}

static hotmerge_status describe(void *instance, const hotmerge_sink *reply) {
    (void)instance;
    return reply->write(
        reply->context,
        text("{\"methods\":["
             "{\"name\":\"add\",\"summary\":\"Adds a decimal number, 1 if the request is empty, and answers "
             "with the sum\",\"example\":\"40\"},"
             "{\"name\":\"get\",\"summary\":\"Answers with the sum\",\"example\":\"\"}]}"));
}

static hotmerge_status save(void *instance, const hotmerge_sink *state) {
    tally *it = instance;
    int64_t sum = atomic_load(&it->sum);
    return state->write(state->context,
                        (hotmerge_bytes){.ptr = (const uint8_t *)&sum, .len = sizeof sum});
}

static hotmerge_status restore(void *instance, hotmerge_bytes from, hotmerge_bytes state,
                               const hotmerge_sink *error) {
    (void)from;
    tally *it = instance;
    int64_t sum;
    if (state.len != sizeof sum) {
        return because(error, HOTMERGE_STATUS_BAD_REQUEST, "a tally's state is 8 bytes");
    }
    memcpy(&sum, state.ptr, sizeof sum);
    atomic_store(&it->sum, sum);
    return HOTMERGE_STATUS_OK;
}

static hotmerge_status teardown(void *instance, uint64_t limit_ns, const hotmerge_sink *error) {
    (void)instance, (void)limit_ns, (void)error;
    return HOTMERGE_STATUS_OK;
}

HOTMERGE_EXPORT const hotmerge_plugin_table hotmerge_plugin = {
    .header = HOTMERGE_TABLE_HEADER,
    .create = create,
    .self_check = self_check,
    .call = call,
    .save = save,
    .restore = restore,
    .teardown = teardown,
    .destroy = free,
    .describe = describe,
};
