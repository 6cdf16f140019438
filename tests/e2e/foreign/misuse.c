/* Everything that a caller may do wrong, or that looks wrong and is right. Ends at the first surprise, with its
 * line. Arguments: a directory with the plugin `actor`, and an empty directory. */

#include <hotmerge.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define EXPECT(condition)                                                                       \
	do {                                                                                    \
		if (!(condition)) {                                                             \
			fprintf(stderr, "line %d: %s; last error: %s\n", __LINE__, #condition,  \
				hm_last_error());                                               \
			exit(1);                                                                \
		}                                                                               \
	} while (0)
#define IS(call, code) EXPECT((call) == (code))
#define SAYS(text) EXPECT(strstr(hm_last_error(), text))

static const hm_host *host, *other;
static const hm_plugin_handle *actor;

static const hm_host *start(const char *dir) {
	char configuration[4096];
	const hm_host *started = NULL;
	snprintf(configuration, sizeof configuration, "plugin_dir = '%s'\nisolation = 'host'\n", dir);
	IS(hm_start(configuration, &started), HM_OK);
	return started;
}

static void configurations(void) {
	const hm_host *none = NULL;
	IS(hm_start(NULL, &none), HM_INVALID);
	SAYS("`configuration` is null");
	IS(hm_start("", NULL), HM_INVALID);
	SAYS("`host` is null");
	IS(hm_start("plugin_dir = '/'", &none), HM_INVALID);
	SAYS("`isolation` is missing");
	IS(hm_start("\xff", &none), HM_INVALID);
	SAYS("not UTF-8");
	IS(hm_start("plugin_dri = '/'\nisolation = 'host'", &none), HM_INVALID);
	SAYS("line 1");
	SAYS("did you mean `plugin_dir`?");
	IS(hm_start("plugin_dir = '/nowhere/at/all'\nisolation = 'host'", &none), HM_FAILED);
	SAYS("/nowhere/at/all");
	EXPECT(none == NULL);
}

static void lengths(void) {
	uint8_t small[1], large[256];
	size_t length = 99;
	memset(small, 7, sizeof small);
	IS(hm_call(NULL, "mark", NULL, 0, NULL, large, sizeof large, &length, NULL), HM_INVALID);
	IS(hm_call(actor, NULL, NULL, 0, NULL, large, sizeof large, &length, NULL), HM_INVALID);
	IS(hm_call(actor, "mark", NULL, 1, NULL, large, sizeof large, &length, NULL), HM_INVALID);
	SAYS("`request` is null");
	IS(hm_call(actor, "mark", large, (size_t)-1, NULL, large, sizeof large, &length, NULL), HM_INVALID);
	SAYS("is not possible");
	IS(hm_call(actor, "mark", NULL, 0, NULL, NULL, 1, &length, NULL), HM_INVALID);
	IS(hm_call(actor, "mark", NULL, 0, NULL, large, sizeof large, NULL, NULL), HM_INVALID);
	IS(hm_call(actor, "nothing", NULL, 0, NULL, large, sizeof large, &length, NULL), HM_NO_METHOD);
	EXPECT(length == 99);
	/* The plugin is called once: it counts, in eight bytes. */
	IS(hm_call(actor, "count", NULL, 0, NULL, large, sizeof large, &length, NULL), HM_OK);
	EXPECT(length == 8 && large[0] == 1);
	IS(hm_take_reply(large, sizeof large, &length, NULL), HM_NOT_FOUND);
	IS(hm_call(actor, "count", NULL, 0, NULL, small, sizeof small, &length, NULL), HM_TOO_SMALL);
	EXPECT(length == 8 && small[0] == 7);
	IS(hm_take_reply(NULL, 0, &length, NULL), HM_TOO_SMALL);
	IS(hm_take_reply(large, sizeof large, &length, NULL), HM_OK);
	EXPECT(length == 8 && large[0] == 2);
	IS(hm_take_reply(large, sizeof large, &length, NULL), HM_NOT_FOUND);
	/* Another call forgets what was not fetched. */
	IS(hm_call(actor, "count", NULL, 0, NULL, NULL, 0, &length, NULL), HM_TOO_SMALL);
	IS(hm_call(actor, "count", NULL, 0, NULL, large, sizeof large, &length, NULL), HM_OK);
	EXPECT(large[0] == 4);
	IS(hm_take_reply(large, sizeof large, &length, NULL), HM_NOT_FOUND);
	IS(hm_status(host, small, sizeof small, &length), HM_TOO_SMALL);
	EXPECT(small[0] == 7 && length > 100);
}

static void options(void) {
	uint8_t reply[256];
	size_t length;
	hm_options options = {0};
	hm_answer answer = {0};
	IS(hm_call(actor, "mark", NULL, 0, &options, reply, sizeof reply, &length, NULL), HM_INVALID);
	SAYS("`options->size` is 0");
	IS(hm_call(actor, "mark", NULL, 0, NULL, reply, sizeof reply, &length, &answer), HM_INVALID);
	SAYS("`answer->size` is 0");
	options.size = sizeof options;
	answer.size = sizeof answer;
	options.traceparent = "nonsense";
	IS(hm_call(actor, "mark", NULL, 0, &options, reply, sizeof reply, &length, &answer), HM_INVALID);
	SAYS("nonsense");
	options.traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
	options.deadline_ms = UINT64_MAX;
	IS(hm_call(actor, "mark", NULL, 0, &options, reply, sizeof reply, &length, &answer), HM_OK);
	EXPECT(answer.generation == 1 && strlen(answer.content_type) > 0);
	hm_cancel *cancel = NULL;
	IS(hm_cancel_new(NULL), HM_INVALID);
	IS(hm_cancel_new(&cancel), HM_OK);
	options.cancel = cancel;
	IS(hm_cancel_calls(NULL), HM_INVALID);
	IS(hm_cancel_calls(cancel), HM_OK);
	IS(hm_cancel_calls(cancel), HM_OK);
	IS(hm_call(actor, "mark", NULL, 0, &options, reply, sizeof reply, &length, &answer), HM_CANCELLED);
	hm_cancel_free(cancel);
	hm_cancel_free(NULL);
}

static void rpc(void) {
	char buffer[512] = "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"actor.mark\"}";
	const size_t request = strlen(buffer);
	size_t length = request;
	IS(hm_rpc(host, (uint8_t *)buffer, 10, &length), HM_INVALID);
	IS(hm_rpc(host, (uint8_t *)buffer, request, &length), HM_OK);
	EXPECT(length < request && !strncmp(buffer, "{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":1}", length));
	strcpy(buffer, "{\"jsonrpc\":\"2.0\",\"id\":8,\"method\":\"actor.none\"}");
	length = strlen(buffer);
	IS(hm_rpc(host, (uint8_t *)buffer, sizeof buffer, &length), HM_OK);
	EXPECT(strstr(buffer, "\"error\":{\"code\":2,"));
	strcpy(buffer, "not JSON");
	length = strlen(buffer);
	IS(hm_rpc(host, (uint8_t *)buffer, length, &length), HM_TOO_SMALL);
	EXPECT(!strcmp(buffer, "not JSON"));
	IS(hm_take_reply((uint8_t *)buffer, sizeof buffer, &length, NULL), HM_OK);
	EXPECT(strstr(buffer, "-32600"));
}

static void count(const hm_event *event, void *user) {
	(void)event;
	++*(int *)user;
}

static void leave(const hm_event *event, void *user) {
	(void)event;
	++*(int *)user;
	IS(hm_off_event(host, leave, user), HM_OK);
	IS(hm_off_event(host, leave, user), HM_NOT_FOUND);
}

static void ask(const hm_event *event, void *user) {
	uint8_t reply[16];
	size_t length;
	(void)event;
	const int code = hm_call(actor, "mark", NULL, 0, NULL, reply, sizeof reply, &length, NULL);
	/* One of the events is that the plugin has stopped. */
	EXPECT(code == HM_OK || code == HM_STOPPED);
	++*(int *)user;
}

static int counted, left, asked;

static void callbacks(void) {
	IS(hm_on_event(host, NULL, NULL), HM_INVALID);
	IS(hm_on_event(NULL, count, NULL), HM_INVALID);
	IS(hm_on_event(host, count, &counted), HM_OK);
	IS(hm_on_event(host, count, &counted), HM_DUPLICATE);
	EXPECT(HM_DUPLICATE == -1);
	IS(hm_on_event(host, leave, &left), HM_OK);
	IS(hm_on_event(host, ask, &asked), HM_OK);
	IS(hm_off_event(host, count, &left), HM_NOT_FOUND);
}

/* After the host has stopped, all events have been told. */
static void told(void) {
	EXPECT(counted == 1 && asked == 1 && left == 1);
}

static void ignore(const hm_log_record *record, void *user) {
	(void)record;
	(void)user;
}

static void logs(void) {
	IS(hm_on_log(0, ignore, NULL), HM_INVALID);
	IS(hm_on_log(6, ignore, NULL), HM_INVALID);
	IS(hm_on_log(5, NULL, NULL), HM_INVALID);
	IS(hm_on_log(5, ignore, NULL), HM_OK);
	IS(hm_on_log(1, ignore, NULL), HM_DUPLICATE);
	IS(hm_off_log(ignore, NULL), HM_OK);
	IS(hm_off_log(ignore, NULL), HM_NOT_FOUND);
}

static void children(void) {
	const pid_t child = fork();
	EXPECT(child >= 0);
	if (child == 0) {
		uint8_t reply[16];
		size_t length;
		int right = hm_call(actor, "mark", NULL, 0, NULL, reply, sizeof reply, &length, NULL) == HM_FORKED;
		right = right && strstr(hm_last_error(), "forked") && hm_stop(host) == HM_FORKED;
		_exit(right ? 0 : 1);
	}
	int status = -1;
	EXPECT(waitpid(child, &status, 0) == child && status == 0);
}

static void *stop(void *right) {
	*(int *)right = hm_stop(host);
	return NULL;
}

static void ends(void) {
	uint8_t reply[16];
	size_t length;
	const hm_plugin_handle *again = NULL;
	int codes[4];
	pthread_t threads[4];
	IS(hm_plugin(host, "actor", &again), HM_OK);
	EXPECT(again == actor);
	IS(hm_plugin(host, "nobody", &again), HM_NOT_FOUND);
	IS(hm_plugin(host, "no name", &again), HM_INVALID);
	IS(hm_plugin(other, "actor", &again), HM_NOT_FOUND);
	for (int i = 0; i < 4; i++) EXPECT(pthread_create(&threads[i], NULL, stop, &codes[i]) == 0);
	int stopped = 0;
	for (int i = 0; i < 4; i++) {
		pthread_join(threads[i], NULL);
		stopped += codes[i] == HM_OK;
		EXPECT(codes[i] == HM_OK || codes[i] == HM_STOPPED);
	}
	EXPECT(stopped == 1);
	IS(hm_stop(host), HM_STOPPED);
	told();
	IS(hm_call(actor, "mark", NULL, 0, NULL, reply, sizeof reply, &length, NULL), HM_STOPPED);
	IS(hm_plugin(host, "actor", &again), HM_STOPPED);
	IS(hm_status(host, reply, sizeof reply, &length), HM_STOPPED);
	IS(hm_reload(host, NULL, reply, sizeof reply, &length), HM_STOPPED);
	IS(hm_on_event(host, count, NULL), HM_STOPPED);
	/* The other one is not affected. */
	IS(hm_status(other, NULL, 0, &length), HM_TOO_SMALL);
	IS(hm_stop(other), HM_OK);
	IS(hm_stop(NULL), HM_INVALID);
}

int main(int argc, char **argv) {
	EXPECT(argc == 3);
	EXPECT(!strcmp(hm_last_error(), ""));
	EXPECT(strlen(hm_version()) > 0);
	configurations();
	host = start(argv[1]);
	other = start(argv[2]);
	IS(hm_plugin(host, "actor", &actor), HM_OK);
	lengths();
	options();
	rpc();
	callbacks();
	logs();
	children();
	ends();
	puts("right");
	return 0;
}
