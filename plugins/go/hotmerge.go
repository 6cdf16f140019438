// Package hotmerge makes a plugin of a Go program: without cgo in the author's own code.
//
//	package main
//
//	import hotmerge "github.com/hotmerge/hotmerge/plugins/go"
//
//	type greeter struct{}
//
//	func (greeter) Call(call *hotmerge.Call, reply *hotmerge.Reply) error {
//		if call.Method != "greet" {
//			return hotmerge.ErrNoMethod
//		}
//		return reply.Text("good day")
//	}
//
//	func init() {
//		hotmerge.Export(func(host *hotmerge.Host, config []byte) (hotmerge.Plugin, error) {
//			return greeter{}, nil
//		})
//	}
//
//	func main() {}
//
// Built with -buildmode=c-shared. A plugin in Go runs in a worker only: Go's runtime cannot be unloaded.
package hotmerge

import (
	"errors"
	"fmt"
	"time"
)

// Plugin answers calls, several at once.
type Plugin interface {
	Call(call *Call, reply *Reply) error
}

// Checker is a Plugin that says whether it can take calls. Go's runtime is checked before.
type Checker interface {
	SelfCheck() error
}

// Saver is a Plugin with state for its next version.
type Saver interface {
	Save() ([]byte, error)
}

// Restorer is a Plugin that takes over the state of another version.
type Restorer interface {
	Restore(from string, state []byte) error
}

// Stopper is a Plugin with work to end within a time: goroutines, files.
type Stopper interface {
	Teardown(limit time.Duration) error
}

// Describer is a Plugin that says which methods it has.
type Describer interface {
	Describe() []Method
}

// Method is what a plugin says of a method.
type Method struct {
	Name    string   `json:"name"`
	Summary string   `json:"summary,omitempty"`
	Request *Payload `json:"request,omitempty"`
	Reply   *Payload `json:"reply,omitempty"`
	Example *string  `json:"example,omitempty"`
}

// Payload is what a plugin says of a request or a reply.
type Payload struct {
	ContentTypes []string `json:"content_types,omitempty"`
	// A JSON schema as text.
	Schema string `json:"schema,omitempty"`
}

// Call is one call. Its bytes are the plugin's own.
type Call struct {
	Method  string
	Request []byte
	// When the reply is wanted; none if it is zero.
	Deadline time.Time
	// W3C ids; all zero if there are none.
	TraceID [16]byte
	SpanID  [8]byte
	// Media types of the request and, as in HTTP, of the wanted reply; empty if the caller says nothing.
	ContentType string
	Accept      string
}

// Reply is what a call is answered with.
type Reply struct {
	bytes       []byte
	contentType string
}

// Write appends bytes; it never fails.
func (r *Reply) Write(bytes []byte) (int, error) {
	r.bytes = append(r.bytes, bytes...)
	return len(bytes), nil
}

// Text appends text and says that the reply is text.
func (r *Reply) Text(text string) error {
	r.bytes = append(r.bytes, text...)
	r.contentType = "text/plain; charset=utf-8"
	return nil
}

// ContentType says what media type the reply has.
func (r *Reply) ContentType(mediaType string) {
	r.contentType = mediaType
}

// What a call can fail with beside errors of the plugin's own.
var (
	ErrNoMethod    = errors.New("there is no such method")
	ErrUnsupported = errors.New("the plugin does not support this")
	ErrDeadline    = errors.New("the deadline passed")
)

// BadRequest is an error for a request that is invalid for its method.
type BadRequest string

func (b BadRequest) Error() string { return string(b) }

// NotAcceptable lists the media types that the plugin can reply in.
type NotAcceptable []string

func (n NotAcceptable) Error() string { return fmt.Sprintf("%v", []string(n)) }

// UnsupportedMedia lists the media types that the plugin understands.
type UnsupportedMedia []string

func (u UnsupportedMedia) Error() string { return fmt.Sprintf("%v", []string(u)) }

var start func(host *Host, config []byte) (Plugin, error)

// Export says how the plugin starts; call it once, in an init function. config is a JSON object.
func Export(plugin func(host *Host, config []byte) (Plugin, error)) {
	if start != nil {
		panic("hotmerge.Export was called twice")
	}
	start = plugin
}
