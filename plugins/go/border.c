/* The table that hosts look for, and the way from its functions to Go's.
 *
 * An instance is a number for Go, not a pointer: Go's pointers must not be kept elsewhere. */

#include "_cgo_export.h"

static hotmerge_status create(const hotmerge_host_table *host, hotmerge_bytes config, void **instance,
                              const hotmerge_sink *error) {
    uintptr_t made = 0;
    hotmerge_status status =
        hotmergeGoCreate((hotmerge_host_table *)host, config, &made, (hotmerge_sink *)error);
    if (status == HOTMERGE_STATUS_OK) {
        *instance = (void *)made;
    }
    return status;
}

static hotmerge_status self_check(void *instance, const hotmerge_sink *error) {
    return hotmergeGoSelfCheck((uintptr_t)instance, (hotmerge_sink *)error);
}

static hotmerge_status call_media(void *instance, const hotmerge_call_context *context, hotmerge_bytes method,
                                  hotmerge_bytes request, const hotmerge_media_types *media,
                                  const hotmerge_sink *reply) {
    return hotmergeGoCall((uintptr_t)instance, (hotmerge_call_context *)context, method, request,
                          (hotmerge_media_types *)media, (hotmerge_sink *)reply);
}

static hotmerge_status call(void *instance, const hotmerge_call_context *context, hotmerge_bytes method,
                            hotmerge_bytes request, const hotmerge_sink *reply) {
    return call_media(instance, context, method, request, NULL, reply);
}

static hotmerge_status save(void *instance, const hotmerge_sink *state) {
    return hotmergeGoSave((uintptr_t)instance, (hotmerge_sink *)state);
}

static hotmerge_status restore(void *instance, hotmerge_bytes from, hotmerge_bytes state,
                               const hotmerge_sink *error) {
    return hotmergeGoRestore((uintptr_t)instance, from, state, (hotmerge_sink *)error);
}

static hotmerge_status teardown(void *instance, uint64_t limit_ns, const hotmerge_sink *error) {
    return hotmergeGoTeardown((uintptr_t)instance, limit_ns, (hotmerge_sink *)error);
}

static void destroy(void *instance) {
    hotmergeGoDestroy((uintptr_t)instance);
}

static hotmerge_status describe(void *instance, const hotmerge_sink *reply) {
    return hotmergeGoDescribe((uintptr_t)instance, (hotmerge_sink *)reply);
}

HOTMERGE_EXPORT const hotmerge_plugin_table hotmerge_plugin = {
    .header = HOTMERGE_TABLE_HEADER,
    .create = create,
    .self_check = self_check,
    .call = call,
    .save = save,
    .restore = restore,
    .teardown = teardown,
    .destroy = destroy,
    .call_media = call_media,
    .describe = describe,
};
