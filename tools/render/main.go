// Command render renders Helm charts for as long as its standard input stays open.
//
// Each line of standard input is a request, each line of standard output the response to one
// request; both are JSON, and carry the caller's id, because responses come in any order.
// The work is done by Helm's own packages, in the order in which `helm template` does it.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
)

func main() {
	// A render is mostly short-lived garbage, and what stays is small: collecting rarely takes a
	// quarter off a render. The limit keeps several of these processes within a laptop's memory.
	debug.SetGCPercent(1600)
	debug.SetMemoryLimit(512 << 20)
	if err := serve(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "render:", err)
		os.Exit(1)
	}
}

// serve answers requests until input ends, and returns once all answers are written.
//
// It always reads on, however many requests wait: a caller may write any number of requests
// before it reads the first response, and never blocks.
func serve(input io.Reader, output io.Writer) error {
	answers := &responseWriter{output: bufio.NewWriter(output), sent: map[string]bool{}}
	program := newRenderer()
	slots := make(chan struct{}, runtime.GOMAXPROCS(0))
	var running sync.WaitGroup

	lines := bufio.NewReaderSize(input, 1<<20)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 1 {
			running.Go(func() {
				slots <- struct{}{}
				defer func() { <-slots }()
				answers.write(answer(program, line))
			})
		}
		if err == io.EOF {
			running.Wait()
			return answers.err
		}
		if err != nil {
			return err
		}
	}
}

// answer turns one line into a response, whatever goes wrong.
func answer(program *renderer, line []byte) (reply *response) {
	var asked request
	defer func() {
		if crash := recover(); crash != nil {
			failure := &failure{Kind: "internal", Message: fmt.Sprintf("%v\n%s", crash, debug.Stack())}
			reply = &response{ID: asked.ID, Error: failure}
		}
	}()
	if err := json.Unmarshal(line, &asked); err != nil {
		return &response{ID: asked.ID, Error: usage("request is not what this program reads: %v", err)}
	}
	reply, failed := program.do(&asked)
	if failed != nil {
		if reply == nil {
			reply = &response{}
		}
		reply.Error = failed
	}
	reply.ID = asked.ID
	return reply
}

// responseWriter writes one response a line, and each distinct object only once.
type responseWriter struct {
	mutex  sync.Mutex
	output *bufio.Writer
	sent   map[string]bool
	err    error
}

// write leaves out every object that an earlier response carried: the caller knows it by digest.
// Deciding and writing happen under one lock, or the caller could see the digest first.
func (w *responseWriter) write(reply *response) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	for i := range reply.Manifests {
		found := &reply.Manifests[i]
		if w.sent[found.Digest] {
			found.Object = nil
		}
		w.sent[found.Digest] = true
	}
	line, err := json.Marshal(reply)
	if err == nil {
		_, err = w.output.Write(append(line, '\n'))
	}
	if err == nil {
		err = w.output.Flush()
	}
	if err != nil && w.err == nil {
		w.err = err
	}
}
