// Command flux builds what Flux would apply, for as long as its standard input stays open.
//
// Each line of standard input is a request, each line of standard output the response to it; both
// are JSON, in the same order. The work is done by the packages of which Flux' controllers are
// made: fluxcd/pkg/kustomize, envsubst and sourceignore. Nothing is fetched, nothing is written.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime/debug"
)

func main() {
	// A build is mostly short-lived garbage: collecting rarely takes a third off its time.
	debug.SetGCPercent(400)
	debug.SetMemoryLimit(512 << 20)
	if err := serve(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "flux:", err)
		os.Exit(1)
	}
}

// request is one line of input.
type request struct {
	Op string `json:"op"` // build, render, ignored, merge or accepted

	// Root is the folder that Flux fetches; Ignore is what its source says of files to leave out
	// (spec.ignore), null where it says nothing.
	Root   string  `json:"root"`
	Ignore *string `json:"ignore"`
	// Files of Root, of which op `ignored` returns those that Flux does not fetch; for `accepted`,
	// tags, of which it returns those that the spec of an ImagePolicy chooses from.
	Files []string `json:"files"`

	Policy imagePolicy `json:"policy"`

	// Kustomization is the Flux object; Variables are those that it takes from elsewhere.
	Kustomization map[string]any    `json:"kustomization"`
	Variables     map[string]string `json:"variables"`

	// Objects are what a chart rendered, PostRenderers what the HelmRelease does to them.
	Objects       []map[string]any `json:"objects"`
	PostRenderers []postRenderer   `json:"post_renderers"`

	// Values are a HelmRelease's own, ValuesFrom those that it takes from elsewhere.
	Values     map[string]any   `json:"values"`
	ValuesFrom []valueReference `json:"values_from"`
}

// response is one line of output.
type response struct {
	Objects []json.RawMessage `json:"objects,omitempty"`
	// Read holds the files that the build read, relative to Root.
	Read []string `json:"read,omitempty"`
	// Undefined holds variables without a value and without a default.
	Undefined []string `json:"undefined,omitempty"`
	Accepted  []string `json:"accepted,omitempty"`
	// Ignored holds the files that Flux does not fetch.
	Ignored []string       `json:"ignored,omitempty"`
	Values  map[string]any `json:"values,omitempty"`
	// Fetched tells that the build wanted something from elsewhere.
	Fetched string `json:"fetched,omitempty"`
	Error   string `json:"error,omitempty"`
}

func serve(input io.Reader, output io.Writer) error {
	// kustomize clones with `git` and reads URLs with the default client: here it finds neither.
	if err := os.Setenv("PATH", ""); err != nil {
		return err
	}
	http.DefaultTransport = offline{}
	lines, encoder := bufio.NewReaderSize(input, 1<<20), json.NewEncoder(output)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 1 {
			if err := encoder.Encode(answer(line)); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// answer turns one line into a response, whatever goes wrong.
func answer(line []byte) (reply *response) {
	reply = &response{}
	defer func() {
		if crash := recover(); crash != nil {
			// kustomize panics over some odd objects; Flux recovers from it in the same way.
			fmt.Fprintf(os.Stderr, "%v\n%s", crash, debug.Stack())
			reply = &response{Error: fmt.Sprintf("kustomize panics: %v", crash)}
		}
	}()
	var asked request
	err := json.Unmarshal(line, &asked)
	if err == nil {
		switch asked.Op {
		case "build":
			err = build(&asked, reply)
		case "render":
			err = render(&asked, reply)
		case "ignored":
			err = ignored(&asked, reply)
		case "accepted":
			err = accepted(&asked, reply)
		case "merge":
			err = merge(&asked, reply)
		default:
			err = fmt.Errorf("there is no operation %q", asked.Op)
		}
	}
	if err != nil {
		reply.Error = err.Error()
	}
	return reply
}

// offline is the network of this program.
type offline struct{}

func (offline) RoundTrip(asked *http.Request) (*http.Response, error) {
	return nil, fmt.Errorf("%s: %s", notFetched, asked.URL)
}
