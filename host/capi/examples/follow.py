"""A main program in Python that follows its plugin's versions.

    python3 follow.py PLUGIN_DIR PLUGIN METHOD

Calls the plugin for each line on standard input and prints which version answered. Replace the plugin
between two lines. `LIBHOTMERGE` names the library where it is not installed.
"""

import ctypes
import os
import sys

OK, TOO_SMALL = 0, -5
hotmerge = ctypes.CDLL(os.environ.get("LIBHOTMERGE", "libhotmerge.so.0"))
hotmerge.hm_last_error.restype = ctypes.c_char_p


class Answer(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("generation", ctypes.c_uint64),
        ("hash", ctypes.c_uint8 * 32),
        ("content_type", ctypes.c_char * 256),
    ]


def check(code):
    if code != OK:
        sys.exit(f"follow: {hotmerge.hm_last_error().decode()}")


def call(plugin, method, request):
    """The reply and the generation that gave it."""
    reply, length = ctypes.create_string_buffer(16), ctypes.c_size_t()
    answer = Answer(size=ctypes.sizeof(Answer))
    size = ctypes.c_size_t
    code = hotmerge.hm_call(plugin, method, request, size(len(request)), None, reply, size(len(reply)),
                            ctypes.byref(length), ctypes.byref(answer))
    if code == TOO_SMALL:
        # Fetches what did not fit, without another call.
        reply = ctypes.create_string_buffer(length.value)
        code = hotmerge.hm_take_reply(reply, size(len(reply)), ctypes.byref(length), ctypes.byref(answer))
    check(code)
    return reply.raw[: length.value].decode(), answer.generation


def main():
    if len(sys.argv) != 4:
        sys.exit("usage: follow.py PLUGIN_DIR PLUGIN METHOD")
    directory, name, method = sys.argv[1:]
    # Plugins run in this process: right for those that are trusted like it.
    configuration = f"plugin_dir = '{directory}'\nisolation = 'host'\n"
    host, plugin, length = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_size_t()
    check(hotmerge.hm_start(configuration.encode(), ctypes.byref(host)))
    check(hotmerge.hm_plugin(host, name.encode(), ctypes.byref(plugin)))
    for line in sys.stdin:
        # Only the scan matters here, not its report.
        code = hotmerge.hm_reload(host, None, None, ctypes.c_size_t(0), ctypes.byref(length))
        if code != TOO_SMALL:
            check(code)
        reply, generation = call(plugin, method.encode(), line.rstrip("\n").encode())
        print(f"generation {generation}: {reply}", flush=True)
    check(hotmerge.hm_stop(host))


main()
