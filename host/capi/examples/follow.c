/* A main program in C that follows its plugin's versions.
 *
 *   cc follow.c $(pkg-config --cflags --libs hotmerge) -o follow
 *   ./follow PLUGIN_DIR PLUGIN METHOD
 *
 * Calls the plugin for each line on standard input and prints which version answered; tells on
 * standard error what happens to plugins. Replace the plugin between two lines. */

#include <hotmerge.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void tell(const hm_event *event, void *user) {
	(void)user;
	fprintf(stderr, "%s: event %d, generation %llu %s\n", event->plugin, event->kind,
		(unsigned long long)event->generation, event->reason ? event->reason : "");
}

static void check(int code) {
	if (code != HM_OK) {
		fprintf(stderr, "follow: %s\n", hm_last_error());
		exit(1);
	}
}

int main(int argc, char **argv) {
	if (argc != 4) {
		fprintf(stderr, "usage: follow PLUGIN_DIR PLUGIN METHOD\n");
		return 2;
	}
	char configuration[4096], line[4096], reply[4096];
	/* Plugins run in this process: right for those that are trusted like it. */
	snprintf(configuration, sizeof configuration, "plugin_dir = '%s'\nisolation = 'host'\n", argv[1]);
	const hm_host *host;
	const hm_plugin_handle *plugin;
	check(hm_start(configuration, &host));
	check(hm_on_event(host, tell, NULL));
	check(hm_plugin(host, argv[2], &plugin));
	while (fgets(line, sizeof line, stdin)) {
		size_t length;
		hm_answer answer = {.size = sizeof answer};
		check(hm_reload(host, NULL, (uint8_t *)reply, sizeof reply, &length));
		check(hm_call(plugin, argv[3], (const uint8_t *)line, strcspn(line, "\n"), NULL,
			(uint8_t *)reply, sizeof reply, &length, &answer));
		printf("generation %llu: %.*s\n", (unsigned long long)answer.generation, (int)length, reply);
		fflush(stdout);
	}
	check(hm_stop(host));
	return 0;
}
