// A plugin in Go with state: it counts the ticks of a timer.
//
// Methods: `ticks` answers with how many there were, `wait` waits for the next one, `share` adds up the
// numbers from 1 to the one in the request, in as many goroutines as there are processors.
package main

import (
	"encoding/binary"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	hotmerge "github.com/hotmerge/hotmerge/plugins/go"
)

const period = 10 * time.Millisecond

// The largest number that `share` takes; the sum of all up to it fits.
const largest = 1 << 24

type ticker struct {
	mutex sync.Mutex
	next  *sync.Cond
	ticks uint64
	stop  chan struct{}
	ended chan struct{}
}

func start(*hotmerge.Host, []byte) (hotmerge.Plugin, error) {
	it := &ticker{stop: make(chan struct{}), ended: make(chan struct{})}
	it.next = sync.NewCond(&it.mutex)
	go it.run()
	return it, nil
}

func (t *ticker) run() {
	defer close(t.ended)
	clock := time.NewTicker(period)
	defer clock.Stop()
	for {
		select {
		case <-clock.C:
			t.mutex.Lock()
			t.ticks++
			t.mutex.Unlock()
			t.next.Broadcast()
		case <-t.stop:
			return
		}
	}
}

func (t *ticker) Call(call *hotmerge.Call, reply *hotmerge.Reply) error {
	switch call.Method {
	case "ticks":
		t.mutex.Lock()
		defer t.mutex.Unlock()
		return reply.Text(strconv.FormatUint(t.ticks, 10))
	case "wait":
		t.mutex.Lock()
		defer t.mutex.Unlock()
		for now := t.ticks; t.ticks == now; {
			t.next.Wait()
		}
		return reply.Text(strconv.FormatUint(t.ticks, 10))
	case "share":
		last, err := strconv.ParseUint(strings.TrimSpace(string(call.Request)), 10, 64)
		if err != nil || last > largest {
			return hotmerge.BadRequest("`share` takes a decimal number up to " + strconv.Itoa(largest))
		}
		return reply.Text(strconv.FormatUint(share(last), 10))
	}
	return hotmerge.ErrNoMethod
}

func share(last uint64) uint64 {
	workers := uint64(runtime.GOMAXPROCS(0))
	sums := make(chan uint64)
	for worker := uint64(0); worker < workers; worker++ {
		go func(first uint64) {
			sum := uint64(0)
			for number := first; number <= last; number += workers {
				sum += number
			}
			sums <- sum
		}(worker)
	}
	total := uint64(0)
	for worker := uint64(0); worker < workers; worker++ {
		total += <-sums
	}
	return total
}

func (t *ticker) Save() ([]byte, error) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	return binary.LittleEndian.AppendUint64(nil, t.ticks), nil
}

func (t *ticker) Restore(_ string, state []byte) error {
	if len(state) != 8 {
		return hotmerge.BadRequest("a ticker's state is 8 bytes")
	}
	t.mutex.Lock()
	defer t.mutex.Unlock()
	t.ticks = binary.LittleEndian.Uint64(state)
	return nil
}

func (t *ticker) Teardown(time.Duration) error {
	close(t.stop)
	<-t.ended
	return nil
}

func (t *ticker) Describe() []hotmerge.Method {
	text := &hotmerge.Payload{ContentTypes: []string{"text/plain; charset=utf-8"}}
	none, hundred := "", "100"
	return []hotmerge.Method{
		{Name: "ticks", Summary: "Answers with the number of ticks", Reply: text, Example: &none},
		{Name: "wait", Summary: "Waits for the next tick", Reply: text, Example: &none},
		{Name: "share", Summary: "Adds up the numbers up to one, in parallel", Request: text, Reply: text,
			Example: &hundred},
	}
}

func init() { hotmerge.Export(start) }

func main() {}
