package hotmerge

/*
#cgo CFLAGS: -std=gnu11 -I${SRCDIR}/include
#include "border.h"
*/
import "C"

import (
	"encoding/json"
	"errors"
	"runtime/cgo"
	"strings"
	"time"
	"unsafe"
)

// Host is what a plugin may ask of its host, from any goroutine until it is destroyed.
type Host struct {
	table *C.hotmerge_host_table
}

// Level says how important a log record is.
type Level uint32

// The levels, most important first.
const (
	Error Level = C.HOTMERGE_LEVEL_ERROR
	Warn  Level = C.HOTMERGE_LEVEL_WARN
	Info  Level = C.HOTMERGE_LEVEL_INFO
	Debug Level = C.HOTMERGE_LEVEL_DEBUG
	Trace Level = C.HOTMERGE_LEVEL_TRACE
)

// Log writes a record to the host's log.
func (h *Host) Log(level Level, message string) {
	target := "plugin"
	C.border_log(h.table, C.uint32_t(level), data(target), C.size_t(len(target)),
		data(message), C.size_t(len(message)), nil)
}

// instance is what the host's number stands for.
type instance struct {
	plugin Plugin
}

func of(handle C.uintptr_t) *instance {
	return cgo.Handle(handle).Value().(*instance)
}

// data is where a text lies; C does not keep it.
func data(text string) unsafe.Pointer {
	if len(text) == 0 {
		return nil
	}
	return unsafe.Pointer(&[]byte(text)[0])
}

func bytesOf(bytes C.hotmerge_bytes) []byte {
	if bytes.ptr == nil || bytes.len == 0 {
		return nil
	}
	borrowed := unsafe.Slice((*byte)(unsafe.Pointer(bytes.ptr)), int(bytes.len))
	return append([]byte(nil), borrowed...)
}

func write(sink *C.hotmerge_sink, text string) C.hotmerge_status {
	return C.border_write(sink, data(text), C.size_t(len(text)))
}

// guard runs what the host asked for, and turns errors and panics into what the contract has for them.
func guard(sink *C.hotmerge_sink, body func() error) (status C.hotmerge_status) {
	defer func() {
		if panicked := recover(); panicked != nil {
			C.border_clear(sink)
			write(sink, report(panicked, uintptr(C.border_base())))
			status = C.HOTMERGE_STATUS_PANIC
		}
	}()
	err := body()
	if err == nil {
		return C.HOTMERGE_STATUS_OK
	}
	status, why := statusOf(err)
	C.border_clear(sink)
	write(sink, why)
	return status
}

func statusOf(err error) (C.hotmerge_status, string) {
	var bad BadRequest
	var not NotAcceptable
	var unsupported UnsupportedMedia
	switch {
	case errors.Is(err, ErrNoMethod):
		return C.HOTMERGE_STATUS_NO_METHOD, ""
	case errors.Is(err, ErrUnsupported):
		return C.HOTMERGE_STATUS_UNSUPPORTED, ""
	case errors.Is(err, ErrDeadline):
		return C.HOTMERGE_STATUS_DEADLINE, ""
	case errors.Is(err, errTooLarge):
		return C.HOTMERGE_STATUS_REPLY_TOO_LARGE, ""
	case errors.As(err, &bad):
		return C.HOTMERGE_STATUS_BAD_REQUEST, string(bad)
	case errors.As(err, &not):
		return C.HOTMERGE_STATUS_NOT_ACCEPTABLE, strings.Join(not, ", ")
	case errors.As(err, &unsupported):
		return C.HOTMERGE_STATUS_UNSUPPORTED_MEDIA, strings.Join(unsupported, ", ")
	}
	return C.HOTMERGE_STATUS_FAILED, err.Error()
}

var errTooLarge = errors.New("the reply exceeds the host's limit")

func answer(sink *C.hotmerge_sink, bytes []byte) error {
	if len(bytes) == 0 {
		return nil
	}
	if C.border_write(sink, unsafe.Pointer(&bytes[0]), C.size_t(len(bytes))) != C.HOTMERGE_STATUS_OK {
		return errTooLarge
	}
	return nil
}

//export hotmergeGoCreate
func hotmergeGoCreate(host *C.hotmerge_host_table, config C.hotmerge_bytes, made *C.uintptr_t,
	failure *C.hotmerge_sink) C.hotmerge_status {
	return guard(failure, func() error {
		if start == nil {
			return errors.New("the plugin's init function does not call hotmerge.Export")
		}
		plugin, err := start(&Host{table: host}, bytesOf(config))
		if err != nil {
			return err
		}
		*made = C.uintptr_t(cgo.NewHandle(&instance{plugin: plugin}))
		return nil
	})
}

//export hotmergeGoSelfCheck
func hotmergeGoSelfCheck(handle C.uintptr_t, failure *C.hotmerge_sink) C.hotmerge_status {
	return guard(failure, func() error {
		if err := checkRuntime(); err != nil {
			return err
		}
		if checker, is := of(handle).plugin.(Checker); is {
			return checker.SelfCheck()
		}
		return nil
	})
}

//export hotmergeGoCall
func hotmergeGoCall(handle C.uintptr_t, context *C.hotmerge_call_context, method C.hotmerge_bytes,
	request C.hotmerge_bytes, media *C.hotmerge_media_types, sink *C.hotmerge_sink) C.hotmerge_status {
	return guard(sink, func() error {
		call := Call{Method: string(bytesOf(method)), Request: bytesOf(request)}
		call.Deadline = deadline(uint64(context.deadline_ns))
		for i, b := range context.trace_id {
			call.TraceID[i] = byte(b)
		}
		for i, b := range context.span_id {
			call.SpanID[i] = byte(b)
		}
		if media != nil {
			call.ContentType = string(bytesOf(media.content_type))
			call.Accept = string(bytesOf(media.accept))
		}
		var reply Reply
		if err := of(handle).plugin.Call(&call, &reply); err != nil {
			return err
		}
		if kind := reply.contentType; kind != "" {
			C.border_content_type(sink, data(kind), C.size_t(len(kind)))
		}
		return answer(sink, reply.bytes)
	})
}

//export hotmergeGoSave
func hotmergeGoSave(handle C.uintptr_t, sink *C.hotmerge_sink) C.hotmerge_status {
	return guard(sink, func() error {
		saver, is := of(handle).plugin.(Saver)
		if !is {
			return ErrUnsupported
		}
		state, err := saver.Save()
		if err != nil {
			return err
		}
		return answer(sink, state)
	})
}

//export hotmergeGoRestore
func hotmergeGoRestore(handle C.uintptr_t, from C.hotmerge_bytes, state C.hotmerge_bytes,
	failure *C.hotmerge_sink) C.hotmerge_status {
	return guard(failure, func() error {
		restorer, is := of(handle).plugin.(Restorer)
		if !is {
			return ErrUnsupported
		}
		return restorer.Restore(string(bytesOf(from)), bytesOf(state))
	})
}

//export hotmergeGoTeardown
func hotmergeGoTeardown(handle C.uintptr_t, limit C.uint64_t, failure *C.hotmerge_sink) C.hotmerge_status {
	return guard(failure, func() error {
		if stopper, is := of(handle).plugin.(Stopper); is {
			return stopper.Teardown(time.Duration(limit))
		}
		return nil
	})
}

//export hotmergeGoDestroy
func hotmergeGoDestroy(handle C.uintptr_t) {
	cgo.Handle(handle).Delete()
}

//export hotmergeGoDescribe
func hotmergeGoDescribe(handle C.uintptr_t, sink *C.hotmerge_sink) C.hotmerge_status {
	return guard(sink, func() error {
		describer, is := of(handle).plugin.(Describer)
		if !is {
			return ErrUnsupported
		}
		text, err := json.Marshal(map[string][]Method{"methods": describer.Describe()})
		if err != nil {
			return err
		}
		return answer(sink, text)
	})
}

// deadline is the time of a point on the monotonic clock.
func deadline(at uint64) time.Time {
	if at == 0 {
		return time.Time{}
	}
	return time.Now().Add(time.Duration(at - uint64(C.border_now())))
}
