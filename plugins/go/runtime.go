package hotmerge

import (
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// Frames of a panic that are reported, innermost first.
const frames = 32

// How long goroutines, timers and the collector may take. Where one of them is not allowed to work, the
// runtime ends the process by itself.
const patience = 10 * time.Second

// checkRuntime uses what Go's runtime needs of the system and does not ask for before: a sandbox that forbids
// it must show now, not at the plugin's first timer.
func checkRuntime() error {
	const many = 8
	done := make(chan struct{}, many)
	for i := 0; i < many; i++ {
		go func() {
			kept := make([][]byte, 0, 64)
			for len(kept) < cap(kept) {
				kept = append(kept, make([]byte, 4096))
			}
			runtime.KeepAlive(kept)
			time.AfterFunc(time.Millisecond, func() { done <- struct{}{} })
		}()
	}
	late := time.NewTimer(patience)
	defer late.Stop()
	runtime.GC()
	for i := 0; i < many; i++ {
		select {
		case <-done:
		case <-late.C:
			return fmt.Errorf("%d of %d goroutines with timers did not end within %v", many-i, many, patience)
		}
	}
	return nil
}

// report says what a panic was and where, as the contract wants it: a message, and a last line with the
// frames' addresses relative to base. Go knows the names of its functions also in a stripped file, so they
// are in the message.
func report(panicked any, base uintptr) string {
	counters := make([]uintptr, frames)
	counters = counters[:runtime.Callers(1, counters)]
	var named []string
	var addresses []string
	stack := runtime.CallersFrames(counters)
	inPlugin := false
	for {
		frame, more := stack.Next()
		// Before it: this package's own functions, and the runtime's for panics.
		if frame.Function == "runtime.gopanic" {
			inPlugin, named, addresses = true, nil, nil
		} else if inPlugin && isBorder(frame.Function) {
			break
		} else if inPlugin && !(len(named) == 0 && strings.HasPrefix(frame.Function, "runtime.")) {
			place := fmt.Sprintf("%s:%d", filepath.Base(frame.File), frame.Line)
			named = append(named, fmt.Sprintf("%s (%s)", frame.Function, place))
			addresses = append(addresses, fmt.Sprintf("%x", frame.PC+1-base))
		}
		if !more {
			break
		}
	}
	message := fmt.Sprintf("panicked: %v", panicked)
	if len(named) > 0 {
		message += ", in " + strings.Join(named, ", ")
		message += "\nstack: " + strings.Join(addresses, " ")
	}
	return message
}

// isBorder says whether a function is where the host's call came in.
func isBorder(function string) bool {
	return strings.HasPrefix(function, border) || strings.HasPrefix(function, "runtime.cgocallback")
}

// What the functions of this package are called.
const border = "github.com/hotmerge/hotmerge/plugins/go."
