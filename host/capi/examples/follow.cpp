// A main program in C++ that follows its plugin's versions.
//
//   c++ -std=c++17 follow.cpp $(pkg-config --cflags --libs hotmerge) -o follow
//   ./follow PLUGIN_DIR PLUGIN METHOD
//
// Calls the plugin for each line on standard input and prints which version answered. Replace the plugin
// between two lines.

#include <hotmerge.h>

#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>

static void check(int code) {
	if (code != HM_OK) throw std::runtime_error(hm_last_error());
}

// A reply of any size: what does not fit is fetched without another call.
static std::string call(const hm_plugin_handle *plugin, const char *method, const std::string &request,
	hm_answer &answer) {
	std::string reply(16, '\0');
	size_t length = 0;
	auto room = [&] { return reinterpret_cast<uint8_t *>(reply.data()); };
	int code = hm_call(plugin, method, reinterpret_cast<const uint8_t *>(request.data()), request.size(),
		nullptr, room(), reply.size(), &length, &answer);
	if (code == HM_TOO_SMALL) {
		reply.resize(length);
		code = hm_take_reply(room(), reply.size(), &length, &answer);
	}
	check(code);
	reply.resize(length);
	return reply;
}

int main(int argc, char **argv) try {
	if (argc != 4) throw std::invalid_argument("usage: follow PLUGIN_DIR PLUGIN METHOD");
	// Plugins run in this process: right for those that are trusted like it.
	const auto configuration = "plugin_dir = '" + std::string(argv[1]) + "'\nisolation = 'host'\n";
	const hm_host *started;
	check(hm_start(configuration.c_str(), &started));
	const std::unique_ptr<const hm_host, int (*)(const hm_host *)> host(started, hm_stop);
	const hm_plugin_handle *plugin;
	check(hm_plugin(host.get(), argv[2], &plugin));
	for (std::string line; std::getline(std::cin, line);) {
		size_t length;
		// Only the scan matters here, not its report.
		if (int code = hm_reload(host.get(), nullptr, nullptr, 0, &length); code != HM_TOO_SMALL) check(code);
		hm_answer answer{};
		answer.size = sizeof answer;
		const auto reply = call(plugin, argv[3], line, answer);
		std::cout << "generation " << answer.generation << ": " << reply << std::endl;
	}
	return 0;
} catch (const std::exception &error) {
	std::cerr << "follow: " << error.what() << '\n';
	return 1;
}
