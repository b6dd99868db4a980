package main

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
)

// request is one line of input. Op is render, branches, values_used, secret or version.
type request struct {
	ID    int64  `json:"id"`
	Op    string `json:"op"`
	Chart string `json:"chart"`
	// Digest of the chart's files, from the caller. Charts are kept by it; without one the chart is
	// read from disk each time.
	Digest string `json:"digest"`
	// Files laid over the chart before it is loaded: path in the chart to text, null removes.
	Files  map[string]*string `json:"files"`
	Values []valuesSource     `json:"values"`
	// Names of the values, for messages; those that have none are numbered.
	Names       []string       `json:"names"`
	Release     releaseOptions `json:"release"`
	KubeVersion string         `json:"kube_version"`
	APIVersions []string       `json:"api_versions"`
	IncludeCRDs bool           `json:"include_crds"`
	Coverage    bool           `json:"coverage"`
	Text        bool           `json:"text"`
	// Of an ExternalSecret: its templates, and what they are executed with (base64).
	Templates map[string]string `json:"templates"`
	Data      map[string][]byte `json:"data"`
}

// valuesSource is one values file: its text as Helm would read it, or a JSON object.
type valuesSource struct {
	YAML string         `json:"yaml"`
	JSON map[string]any `json:"json"`
}

type releaseOptions struct {
	Name      string `json:"name"`
	Namespace string `json:"namespace"`
	Revision  int    `json:"revision"`
	IsUpgrade bool   `json:"is_upgrade"`
}

// response is one line of output: an error, or what the op returns.
type response struct {
	ID        int64             `json:"id"`
	Error     *failure          `json:"error,omitempty"`
	Manifests []manifest        `json:"manifests,omitempty"`
	Notes     string            `json:"notes,omitempty"`
	Hits      []string          `json:"hits,omitempty"`
	Branches  []branch          `json:"branches,omitempty"`
	Used      []valueUse        `json:"used,omitempty"`
	Texts     map[string]string `json:"texts,omitempty"`
	Data      map[string][]byte `json:"data,omitempty"`
	Helm      string            `json:"helm,omitempty"`
}

// manifest is one rendered object. Object is absent where an earlier response carried it.
type manifest struct {
	Source string          `json:"source"`
	Index  int             `json:"index"`
	Digest string          `json:"digest"`
	Object json.RawMessage `json:"object,omitempty"`
}

// failure says what went wrong, and where, in terms of the chart.
type failure struct {
	Kind     string    `json:"kind"` // schema, template, yaml, load, usage, internal
	Message  string    `json:"message"`
	Template string    `json:"template,omitempty"`
	Line     int       `json:"line,omitempty"`
	Values   []badPart `json:"values,omitempty"`
}

// badPart is one place in the values that the chart's schema refuses.
type badPart struct {
	Path    []string `json:"path"`
	Message string   `json:"message"`
}

func usage(format string, args ...any) *failure {
	return &failure{Kind: "usage", Message: fmt.Sprintf(format, args...)}
}

func loadFailure(err error) *failure { return &failure{Kind: "load", Message: err.Error()} }

// location finds "chart/templates/file.yaml:LINE" in a template error.
var location = regexp.MustCompile(`([\w.\-/]+/templates/[\w.\-/]+):(\d+)`)

// templateFailure names the innermost template: an error inside a helper lists its callers first.
func templateFailure(err error) *failure {
	failed := &failure{Kind: "template", Message: err.Error()}
	if found := location.FindAllStringSubmatch(failed.Message, -1); found != nil {
		last := found[len(found)-1]
		failed.Template = last[1]
		failed.Line, _ = strconv.Atoi(last[2])
	}
	return failed
}
