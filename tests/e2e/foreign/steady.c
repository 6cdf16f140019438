/* Calls a plugin from several threads until standard input ends, and tells how many calls there were, how many
 * failed, and which generation answers at the end. Arguments: plugin directory, isolation, worker program. */

#include <hotmerge.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#define THREADS 4

static const hm_plugin_handle *plugin;
static atomic_bool stop;
static atomic_ulong calls, failed;

/* The generation that answered, or 0. */
static unsigned long call(void) {
	uint8_t reply[64];
	size_t length;
	hm_answer answer = {.size = sizeof answer};
	const int code = hm_call(plugin, "mark", NULL, 0, NULL, reply, sizeof reply, &length, &answer);
	calls++;
	if (code == HM_OK) return answer.generation;
	failed++;
	fprintf(stderr, "%d: %s\n", code, hm_last_error());
	return 0;
}

static void *call_on(void *unused) {
	(void)unused;
	while (!stop) call();
	return NULL;
}

static void tell(const hm_event *event, void *user) {
	(void)user;
	if (event->kind == HM_EVENT_KIND_RELOADED) {
		printf("reloaded %llu\n", (unsigned long long)event->generation);
		fflush(stdout);
	}
}

static void check(int code) {
	if (code != HM_OK) {
		fprintf(stderr, "%s\n", hm_last_error());
		exit(1);
	}
}

int main(int argc, char **argv) {
	char configuration[8192];
	const hm_host *host;
	pthread_t threads[THREADS];
	if (argc != 4) return 2;
	snprintf(configuration, sizeof configuration, "plugin_dir = '%s'\nisolation = '%s'\nworker = '%s'\nsymbols = 'off'\n",
		argv[1], argv[2], argv[3]);
	check(hm_start(configuration, &host));
	check(hm_on_event(host, tell, NULL));
	check(hm_plugin(host, "actor", &plugin));
	for (int i = 0; i < THREADS; i++) pthread_create(&threads[i], NULL, call_on, NULL);
	puts("calling");
	fflush(stdout);
	while (getchar() != EOF) {
	}
	stop = 1;
	for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
	const unsigned long newest = call();
	check(hm_stop(host));
	printf("calls %lu failed %lu newest %lu\n", calls, failed, newest);
	return 0;
}
