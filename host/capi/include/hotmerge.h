/* The C library of hotmerge: a host inside a main process of any language.
 *
 * Made from the sources of the library. Link with `pkg-config --libs hotmerge`.
 * Licence: MIT OR Apache-2.0
 *
 * Rules of every function:
 * - It returns HM_OK or a negative code; hm_last_error() has the sentence, per thread.
 * - Memory belongs to whoever allocated it. The library writes into the caller's buffers and says how many
 *   bytes there are; a buffer that is too small is left untouched (HM_TOO_SMALL), and what did not fit can be
 *   fetched without doing the work again.
 * - Text is UTF-8 and ends with NUL, except where a length is given.
 * - Handles are never freed: a host that was stopped, and the handles of its plugins, answer HM_STOPPED.
 * - It may be called from any thread, also from callbacks; not from signal handlers. In a child after
 *   fork() it returns HM_FORKED.
 */

#ifndef HOTMERGE_H
#define HOTMERGE_H

#include <stddef.h>
#include <stdint.h>

/*
 Done.
 */
#define HM_OK 0

/*
 This callback is registered already, with the same user pointer.
 */
#define HM_DUPLICATE -1

/*
 An argument is invalid: a null pointer, text that is not UTF-8, a wrong size.
 */
#define HM_INVALID -2

/*
 The host has been stopped.
 */
#define HM_STOPPED -3

/*
 This process is a child that was forked from the one that started the host.
 */
#define HM_FORKED -4

/*
 The buffer is too small and untouched; the needed length is where the length was asked for.
 */
#define HM_TOO_SMALL -5

/*
 There is no such plugin, callback or kept reply.
 */
#define HM_NOT_FOUND -6

/*
 No version of the plugin takes calls.
 */
#define HM_NOT_LOADED -7

/*
 The plugin has no such method.
 */
#define HM_NO_METHOD -8

/*
 The plugin answered with an error of its own.
 */
#define HM_REFUSED -9

/*
 The request or its media type is invalid for the method.
 */
#define HM_BAD_REQUEST -10

/*
 The deadline passed.
 */
#define HM_DEADLINE -11

/*
 The call was cancelled.
 */
#define HM_CANCELLED -12

/*
 The plugin panicked or crashed during the call. Other calls are not affected.
 */
#define HM_CRASHED -13

/*
 The reply is larger than the caller permits.
 */
#define HM_TOO_LARGE -14

/*
 The host cannot start, or the system lacks what is needed.
 */
#define HM_FAILED -15

/*
 A fault of this library.
 */
#define HM_BUG -16

/*
 What happened.
 */
typedef enum hm_event_kind {
  /*
   The first version of a plugin went live.
   */
  HM_EVENT_KIND_LOADED = 1,
  /*
   A new version replaced the one that ran.
   */
  HM_EVENT_KIND_RELOADED = 2,
  /*
   A new version takes a share of the calls.
   */
  HM_EVENT_KIND_TRYING = 3,
  /*
   A version was refused; what ran before still runs.
   */
  HM_EVENT_KIND_REFUSED = 4,
  /*
   The file changed, but not the code that runs.
   */
  HM_EVENT_KIND_UNCHANGED = 5,
  /*
   The plugin is gone from the directory and takes no more calls.
   */
  HM_EVENT_KIND_REMOVED = 6,
  /*
   The host stops, and the plugin takes no more calls.
   */
  HM_EVENT_KIND_STOPPED = 7,
  /*
   The plugin crashed, or its panic was caught.
   */
  HM_EVENT_KIND_CRASHED = 8,
  /*
   Another instance takes the calls after a crash.
   */
  HM_EVENT_KIND_RECOVERED = 9,
  /*
   It crashed too often, and the host gave it up.
   */
  HM_EVENT_KIND_GIVEN_UP = 10,
} hm_event_kind;

/*
 Ends calls from another thread.
 */
typedef struct hm_cancel hm_cancel;

/*
 A host, running or stopped.
 */
typedef struct hm_host hm_host;

/*
 A plugin of a host, whichever version of it runs.
 */
typedef struct hm_plugin_handle hm_plugin_handle;

/*
 Options of a call. All zero except `size` means: no options.
 */
typedef struct hm_options {
  /*
   The size of this structure, in bytes.
   */
  size_t size;
  /*
   How long the caller waits, in milliseconds; 0 means as long as the host's configuration says.
   */
  uint64_t deadline_ms;
  /*
   The largest reply that is accepted, in bytes; 0 means 64 MiB.
   */
  size_t max_reply;
  /*
   The media type of the request, or null.
   */
  const char *content_type;
  /*
   The media types that are accepted, as in HTTP's `Accept`, or null.
   */
  const char *accept;
  /*
   The trace that the call belongs to, as a W3C `traceparent`, or null.
   */
  const char *traceparent;
  /*
   What ends the call from another thread, or null.
   */
  const struct hm_cancel *cancel;
} hm_options;

/*
 What is known of a reply besides its bytes.
 */
typedef struct hm_answer {
  /*
   The size of this structure, in bytes, set by the caller.
   */
  size_t size;
  /*
   Which version answered, counted from 1.
   */
  uint64_t generation;
  /*
   The SHA-256 of the version that answered.
   */
  uint8_t hash[32];
  /*
   The media type of the reply, with a NUL.
   */
  char content_type[256];
} hm_answer;

/*
 An event of a plugin. It and all that it points to belong to the library and are valid until the callback
 returns.
 */
typedef struct hm_event {
  /*
   The size of this structure, in bytes.
   */
  size_t size;
  /*
   What happened.
   */
  enum hm_event_kind kind;
  /*
   The plugin's name.
   */
  const char *plugin;
  /*
   The version that it is about, or null.
   */
  const char *version;
  /*
   Why, in a sentence, or null.
   */
  const char *reason;
  /*
   The generation that runs now, or 0.
   */
  uint64_t generation;
  /*
   The 32 bytes of the version's SHA-256, or null.
   */
  const uint8_t *hash;
  /*
   How many events were lost so far because callbacks were too slow.
   */
  uint64_t lost;
} hm_event;

/*
 A function that receives events, with the user pointer of its registration.
 */
typedef void (*hm_event_callback)(const struct hm_event *event, void *user);

/*
 A log record. It and all that it points to belong to the library and are valid until the callback returns.
 */
typedef struct hm_log_record {
  /*
   The size of this structure, in bytes.
   */
  size_t size;
  /*
   1 error, 2 warning, 3 information, 4 debug, 5 trace.
   */
  int level;
  /*
   Which part of the host wrote it, for example "hotmerge::plugin"; "plugin" if a plugin did.
   */
  const char *target;
  /*
   The plugin that it is about, or null.
   */
  const char *plugin;
  /*
   The message.
   */
  const char *message;
  /*
   All other fields, as an object in JSON.
   */
  const char *fields;
  /*
   How many records were lost so far because callbacks were too slow.
   */
  uint64_t lost;
} hm_log_record;

/*
 A function that is given log records, with the user pointer of its registration.
 */
typedef void (*hm_log_callback)(const struct hm_log_record *record, void *user);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/*
 Calls a method of a plugin. It runs on one version from start to finish, on this thread or in the plugin's
 own process.

 The reply is copied into `buffer`, and `*length` set to its length. If the buffer is too small
 (`HM_TOO_SMALL`), it is untouched, the length is set, and `hm_take_reply` gets the reply into a larger
 one without another call. `options` and `answer` may be null.

 # Safety
 `plugin` comes from `hm_plugin`, `method` is text that ends with NUL, `request_length` bytes can be read
 at `request`, `capacity` bytes written at `buffer`, which nobody else uses meanwhile; `options` and
 `answer` are null or valid, with their `size` set.
 */
int hm_call(const struct hm_plugin_handle *plugin,
            const char *method,
            const uint8_t *request,
            size_t request_length,
            const struct hm_options *options,
            uint8_t *buffer,
            size_t capacity,
            size_t *length,
            struct hm_answer *answer);

/*
 Gets the reply that did not fit into the buffer of this thread's last `hm_call`.

 `HM_NOT_FOUND` if there is none: it was fetched, or another call was made since.

 # Safety
 As for `hm_call`.
 */
int hm_take_reply(uint8_t *buffer, size_t capacity, size_t *length, struct hm_answer *answer);

/*
 Makes something that can end calls from another thread: name it in `hm_options`.

 # Safety
 `cancel` is a place for a pointer. The caller frees it with `hm_cancel_free`.
 */
int hm_cancel_new(struct hm_cancel **cancel);

/*
 Ends the calls that name it, those under way and those to come, with `HM_CANCELLED`. A call in the host's
 own process returns when the plugin does.

 # Safety
 `cancel` comes from `hm_cancel_new` and is not freed.
 */
int hm_cancel_calls(const struct hm_cancel *cancel);

/*
 Frees it. Calls that name it may still be under way; they are not ended. Null is allowed.

 # Safety
 `cancel` is null or comes from `hm_cancel_new`, and nobody uses it any more in another function.
 */
void hm_cancel_free(struct hm_cancel *cancel);

/*
 Registers a function that receives what happens to plugins from now on, on a thread of the library.

 It may use every function of the library; while it runs, further events wait. Registered again with the
 same `user` it is refused (`HM_DUPLICATE`).

 # Safety
 `host` comes from `hm_start`; `callback` is such a function, does not unwind, and may be called with
 `user` until `hm_off_event` or `hm_stop` has returned.
 */
int hm_on_event(const struct hm_host *host,
                hm_event_callback callback,
                void *user);

/*
 Unregisters a function. When this returns, it does not run and will not; called by the function
 itself, it will not run again.

 `HM_NOT_FOUND` if it is not registered with this `user`.

 # Safety
 `host` comes from `hm_start`.
 */
int hm_off_event(const struct hm_host *host, hm_event_callback callback, void *user);

/*
 Why the last function of this thread that failed did so, as one sentence.

 The text belongs to the library and stays until the next function of this thread fails; it is empty if
 none has failed.
 */
const char *hm_last_error(void);

/*
 The version of this library, for example "0.1.0". The text belongs to the library and stays for ever.
 */
const char *hm_version(void);

/*
 Starts a host and waits until it has tried all plugins once.

 `configuration` is the text of a configuration in TOML, as in `hotmerge.toml(5)`; it needs at least
 `plugin_dir` and `isolation`. Plugins that cannot be started are not an error; `hm_status` has the reasons.
 `*host` is set only if the host runs. A process may run several hosts.

 # Safety
 `configuration` is text that ends with NUL, `host` a place for a pointer.
 */
int hm_start(const char *configuration,
             const struct hm_host **host);

/*
 Stops a host: calls under way are answered, plugins are torn down, callbacks of events end. A second
 time is refused (`HM_STOPPED`), from however many threads.

 `HM_FAILED` if plugins have not ended in time; the host is stopped anyway.

 # Safety
 `host` is null or comes from `hm_start`.
 */
int hm_stop(const struct hm_host *host);

/*
 A handle of a plugin, for all its versions. The same plugin has one handle; nobody frees it.

 `HM_NOT_FOUND` if the host runs no such plugin; the sentence says why, if it was refused.

 # Safety
 `host` comes from `hm_start`, `name` is text that ends with NUL, `plugin` a place for a pointer.
 */
int hm_plugin(const struct hm_host *host, const char *name, const struct hm_plugin_handle **plugin);

/*
 Scans the plugin directory, waits until every change has an outcome, and writes a report in JSON: what
 `hotmerge reload --json` prints. `plugin` limits the report to one plugin; null means all.

 `HM_TOO_SMALL` leaves the buffer untouched; the scan is done. `buffer` may be null with a capacity
 of 0 for those who want no report.

 # Safety
 `host` comes from `hm_start`, `plugin` is null or text that ends with NUL, `capacity` bytes at `buffer`
 can be written, and so can `*length`.
 */
int hm_reload(const struct hm_host *host,
              const char *plugin,
              uint8_t *buffer,
              size_t capacity,
              size_t *length);

/*
 Writes the status of the host in JSON: what `hotmerge status --json` prints.

 # Safety
 As `hm_reload`.
 */
int hm_status(const struct hm_host *host, uint8_t *buffer, size_t capacity, size_t *length);

/*
 Registers a function that is given the log records of all hosts in this process and of their plugins, up
 to a level from 1 (errors) to 5 (traces), on a thread of the library.

 Without such a function nothing is logged. Registered again with the same `user` it is refused
 (`HM_DUPLICATE`).

 # Safety
 `callback` is such a function, does not unwind, and may be called with `user` until `hm_off_log` has
 returned.
 */
int hm_on_log(int level,
              hm_log_callback callback,
              void *user);

/*
 Unregisters a function. When this returns, it does not run and will not; called by the function
 itself, it will not run again.

 `HM_NOT_FOUND` if it is not registered with this `user`.

 # Safety
 None beyond those of every function.
 */
int hm_off_log(hm_log_callback callback, void *user);

/*
 Replaces a JSON-RPC 2.0 request by its reply.

 The method is `PLUGIN.METHOD`. The parameters are given to the plugin as JSON; without any, its request is
 empty. A reply in JSON is the result; one in other text is the result as a string. Whatever goes
 wrong with the call is an error object, and this function succeeds. `length` is the length of the request
 in `buffer`, then that of the reply.

 If the reply is longer than `capacity` (`HM_TOO_SMALL`), the request stays in the buffer, `*length` is the
 needed length, and `hm_take_reply` gets the reply.

 # Safety
 `host` comes from `hm_start`; `capacity` bytes at `buffer` can be read and written, and nobody else uses
 them meanwhile; so can `*length`.
 */
int hm_rpc(const struct hm_host *host,
           uint8_t *buffer,
           size_t capacity,
           size_t *length);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* HOTMERGE_H */
