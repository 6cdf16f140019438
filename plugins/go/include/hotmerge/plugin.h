/* The contract between a hotmerge host and its plugins, for plugins in C.
 *
 * Made from the sources of the contract. A plugin is a shared object that exports one constant:
 *
 *     HOTMERGE_EXPORT const hotmerge_plugin_table hotmerge_plugin = {
 *         .header = HOTMERGE_TABLE_HEADER,
 *         .create = create, ...
 *     };
 *
 * Licence: MIT OR Apache-2.0
 *
 * Rules:
 * - Nothing unwinds across the border: no exception, no longjmp.
 * - Neither side frees memory that the other allocated. Requests are borrowed for the duration of a call;
 *   replies are written through a sink that the host owns.
 * - Text is UTF-8 with a length, without NUL at its end.
 * - `call` may run on several threads at once.
 */

#ifndef HOTMERGE_PLUGIN_H
#define HOTMERGE_PLUGIN_H

#include <stddef.h>
#include <stdint.h>

/*
 The binary layout. A host never runs plugins of another major.
 */
#define HOTMERGE_ABI_MAJOR 1

/*
 The interface version: incremented whenever a table gains fields.

 * 1: [`HostTable::call`], [`STATUS_NO_PLUGIN`].
 * 2: [`PluginTable::call_media`], [`PluginTable::describe`], [`HostTable::call_media`],
   [`MediaTypes`], [`STATUS_NOT_ACCEPTABLE`], [`STATUS_UNSUPPORTED_MEDIA`].
 */
#define HOTMERGE_ABI_MINOR 2

/*
 Longest media type in bytes.
 */
#define HOTMERGE_CONTENT_TYPE_LIMIT 255

/*
 Longest list of accepted media types in bytes.
 */
#define HOTMERGE_ACCEPT_LIMIT 2048

/*
 Something failed and needs attention.
 */
#define HOTMERGE_LEVEL_ERROR 1

/*
 Something is unusual, but work continues.
 */
#define HOTMERGE_LEVEL_WARN 2

/*
 Information for operators.
 */
#define HOTMERGE_LEVEL_INFO 3

/*
 Information for developers.
 */
#define HOTMERGE_LEVEL_DEBUG 4

/*
 Everything else.
 */
#define HOTMERGE_LEVEL_TRACE 5

/*
 The result of a plugin function. A plain integer, because a C enum would make any
 other value undefined behaviour.
 */
typedef int32_t hotmerge_status;

/*
 The part of the table that is read from the file before it is loaded: 16 bytes
 without a pointer.
 */
typedef struct hotmerge_table_header {
  /*
   [`MAGIC`].
   */
  uint8_t magic[8];
  /*
   [`ABI_MAJOR`] the plugin was built with, in the machine's byte order.
   */
  uint16_t abi_major;
  /*
   [`ABI_MINOR`] the plugin was built with.
   */
  uint16_t abi_minor;
  /*
   Size of the plugin's [`PluginTable`] in bytes.
   */
  uint32_t size;
} hotmerge_table_header;

/*
 Borrowed bytes. Valid for the duration of the call they are passed to.

 `ptr` may be null only if `len` is 0.
 */
typedef struct hotmerge_bytes {
  /*
   First byte.
   */
  const uint8_t *ptr;
  /*
   Length in bytes.
   */
  size_t len;
} hotmerge_bytes;

/*
 The context of a call. 56 bytes, filled by the host.
 */
typedef struct hotmerge_call_context {
  /*
   Size of this struct in bytes as the host knows it.
   */
  uint32_t size;
  /*
   W3C trace flags in the lowest byte; other bits are 0.
   */
  uint32_t trace_flags;
  /*
   Point on `CLOCK_MONOTONIC`, in nanoseconds, by which the reply is wanted; 0 for none.
   */
  uint64_t deadline_ns;
  /*
   W3C trace id, big-endian bytes; all zero if there is none.
   */
  uint8_t trace_id[16];
  /*
   W3C span id of this call, big-endian bytes; all zero if there is none.
   */
  uint8_t span_id[8];
  /*
   Reserved for later minors, 0.
   */
  uint64_t reserved[2];
} hotmerge_call_context;

/*
 Output for a plugin: memory that the host owns.

 Each `write` appends. Both functions may be called only during the call the
 sink was passed to, and only from its thread.
 */
typedef struct hotmerge_sink {
  /*
   Size of this struct in bytes as the host knows it.
   */
  size_t size;
  /*
   The host's own, passed back unchanged.
   */
  void *context;
  /*
   Appends bytes. [`STATUS_OK`], or [`STATUS_REPLY_TOO_LARGE`] with nothing appended.
   */
  hotmerge_status (*write)(void *context, struct hotmerge_bytes bytes);
  /*
   Discards everything written so far, so that an error text can replace a partial reply.
   */
  void (*clear)(void *context);
  /*
   Sets the media type of the reply (`text/plain`, …); UTF-8, at most 255 bytes.
   */
  hotmerge_status (*content_type)(void *context, struct hotmerge_bytes media_type);
} hotmerge_sink;

/*
 What a caller says of the media types of a call (minor 2). Each is empty if the caller says
 nothing; otherwise visible characters, tabs and spaces of UTF-8.
 */
typedef struct hotmerge_media_types {
  /*
   Size of this struct in bytes as the host knows it.
   */
  size_t size;
  /*
   Media type of the request, at most [`CONTENT_TYPE_LIMIT`] bytes.
   */
  struct hotmerge_bytes content_type;
  /*
   Media types wanted for the reply, in the syntax of HTTP's `Accept`, at most
   [`ACCEPT_LIMIT`] bytes.
   */
  struct hotmerge_bytes accept;
} hotmerge_media_types;

/*
 The host's services for a plugin. Valid from `create` until `destroy` returns,
 from every thread.
 */
typedef struct hotmerge_host_table {
  /*
   ABI of the host; a plugin may use only fields within `size`.
   */
  uint16_t abi_major;
  /*
   Minor version of the host's ABI.
   */
  uint16_t abi_minor;
  /*
   Size of this struct in bytes as the host knows it.
   */
  uint32_t size;
  /*
   The host's own, passed back unchanged.
   */
  void *context;
  /*
   Writes one log record. `level` is one of [`level`]; `call` is null outside a call.
   Never blocks on a slow log: if the buffer is full, the host counts the record as lost.
   */
  void (*log)(void *context,
              uint32_t level,
              struct hotmerge_bytes target,
              struct hotmerge_bytes message,
              const struct hotmerge_call_context *call);
  /*
   Calls another plugin, which the caller's `plugin.meta` must require, on this thread
   (minor 1). `call` is the call on whose behalf this one is made, or null: it inherits
   deadline and trace. The reply, or the reason of a refusal, is written to `reply`, a sink of the
   caller's own.
   */
  hotmerge_status (*call)(void *context,
                          struct hotmerge_bytes plugin,
                          struct hotmerge_bytes method,
                          struct hotmerge_bytes request,
                          const struct hotmerge_call_context *call,
                          const struct hotmerge_sink *reply);
  /*
   As `call`, with the media types of request and reply (minor 2). A plugin of an older minor is
   called without them.
   */
  hotmerge_status (*call_media)(void *context,
                                struct hotmerge_bytes plugin,
                                struct hotmerge_bytes method,
                                struct hotmerge_bytes request,
                                const struct hotmerge_call_context *call,
                                const struct hotmerge_media_types *media_types,
                                const struct hotmerge_sink *reply);
} hotmerge_host_table;

/*
 The table that a plugin exports as [`ENTRY_SYMBOL`].

 The host calls `create` once, then any of `self_check`, `restore`, `call`, `describe` and `save`
 (from any thread, several at once), then `teardown` after the last call has returned,
 then `destroy`. After `destroy` no thread of the plugin may run. If the plugin runs in
 its own process, that process exits instead of `destroy`; after a crash or a panic it exits
 without `teardown`, too.
 */
typedef struct hotmerge_plugin_table {
  /*
   Magic and version.
   */
  struct hotmerge_table_header header;
  /*
   Makes an instance. `config` is a JSON object (UTF-8), `{}` by default. On any
   status but [`STATUS_OK`] the sink holds the reason and `instance` is unchanged.
   */
  hotmerge_status (*create)(const struct hotmerge_host_table *host,
                            struct hotmerge_bytes config,
                            void **instance,
                            const struct hotmerge_sink *error);
  /*
   Checks whether the instance can take calls; if not, the sink holds the reason.
   */
  hotmerge_status (*self_check)(void *instance, const struct hotmerge_sink *error);
  /*
   Answers one call. On any status but [`STATUS_OK`] the sink holds the reason as UTF-8.
   */
  hotmerge_status (*call)(void *instance,
                          const struct hotmerge_call_context *call,
                          struct hotmerge_bytes method,
                          struct hotmerge_bytes request,
                          const struct hotmerge_sink *reply);
  /*
   Writes the state for the next version, or [`STATUS_UNSUPPORTED`].
   */
  hotmerge_status (*save)(void *instance, const struct hotmerge_sink *state);
  /*
   Restores the state that version `from` saved, or [`STATUS_UNSUPPORTED`].
   */
  hotmerge_status (*restore)(void *instance,
                             struct hotmerge_bytes from,
                             struct hotmerge_bytes state,
                             const struct hotmerge_sink *error);
  /*
   Ends the instance's work within `limit_ns` nanoseconds: threads joined, files closed.
   */
  hotmerge_status (*teardown)(void *instance, uint64_t limit_ns, const struct hotmerge_sink *error);
  /*
   Frees the instance. Nothing may be called with it afterwards.
   */
  void (*destroy)(void *instance);
  /*
   As `call`, for a caller that names media types (minor 2). If it is null, the host uses `call`
   and drops them.
   */
  hotmerge_status (*call_media)(void *instance,
                                const struct hotmerge_call_context *call,
                                struct hotmerge_bytes method,
                                struct hotmerge_bytes request,
                                const struct hotmerge_media_types *media_types,
                                const struct hotmerge_sink *reply);
  /*
   Writes what the plugin says of its methods (minor 2), or [`STATUS_UNSUPPORTED`]; null means the
   same. May be called as `call` may. The reply is a JSON object:
   `{"methods":[{"name":"…","summary":"…","request":PAYLOAD,"reply":PAYLOAD,"example":"…"}]}`,
   where PAYLOAD is `{"content_types":["…"],"schema":"a JSON schema as text"}`. All but `name` may be
   absent.
   */
  hotmerge_status (*describe)(void *instance, const struct hotmerge_sink *reply);
} hotmerge_plugin_table;

/*
 The call succeeded.
 */
#define HOTMERGE_STATUS_OK 0

/*
 The plugin refused the call; the reply holds the reason as UTF-8.
 */
#define HOTMERGE_STATUS_FAILED 1

/*
 The plugin has no method with that name.
 */
#define HOTMERGE_STATUS_NO_METHOD 2

/*
 The request is invalid for the method; the reply holds the reason.
 */
#define HOTMERGE_STATUS_BAD_REQUEST 3

/*
 The deadline of the call passed.
 */
#define HOTMERGE_STATUS_DEADLINE 4

/*
 The plugin panicked; the panic was caught inside the plugin and the reply holds
 its message and location. An optional last line `stack: 1a2b 3c4d` holds the plugin's
 frames, innermost first: return addresses relative to its ELF header, in hexadecimal.
 */
#define HOTMERGE_STATUS_PANIC 5

/*
 The plugin does not support this (it has no state to save, for example).
 */
#define HOTMERGE_STATUS_UNSUPPORTED 6

/*
 The reply exceeds the host's size limit.
 */
#define HOTMERGE_STATUS_REPLY_TOO_LARGE 7

/*
 No plugin with that name takes calls, or the caller does not require it (minor 1); the
 reply names the cause.
 */
#define HOTMERGE_STATUS_NO_PLUGIN 8

/*
 The plugin can reply in none of the media types that the caller accepts (minor 2); the reply
 names those that it can.
 */
#define HOTMERGE_STATUS_NOT_ACCEPTABLE 9

/*
 The plugin does not understand the request's media type (minor 2); the reply names those that
 it does.
 */
#define HOTMERGE_STATUS_UNSUPPORTED_MEDIA 10

#endif  /* HOTMERGE_PLUGIN_H */

/* The start of every table: what a host checks in the file, before it loads the plugin. */
#define HOTMERGE_TABLE_HEADER                                                                      \
    {{'h', 'o', 't', 'm', 'e', 'r', 'g', 'e'},                                                     \
     HOTMERGE_ABI_MAJOR,                                                                           \
     HOTMERGE_ABI_MINOR,                                                                           \
     sizeof(hotmerge_plugin_table)}

#ifdef __cplusplus
#define HOTMERGE_EXPORT extern "C" __attribute__((visibility("default")))
#else
#define HOTMERGE_EXPORT __attribute__((visibility("default")))
#endif
