package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"unicode"

	chart "helm.sh/helm/v4/pkg/chart/v2"
	release "helm.sh/helm/v4/pkg/release/v1"
	releaseutil "helm.sh/helm/v4/pkg/release/v1/util"
	"sigs.k8s.io/yaml"
)

// documentCache keeps parsed documents by place and text. Of the many renders of a chart most give
// the same text for most of its objects, and parsing costs more than executing templates.
type documentCache struct {
	mutex sync.Mutex
	kept  map[[sha256.Size]byte]*document
}

// mostDocuments bounds the cache; it is emptied when full.
const mostDocuments = 100_000

// document is what one rendered document holds: an object or a hook, neither, or what is wrong.
type document struct {
	role   role
	kind   string
	object manifest
	failed *failure
}

type role int

const (
	nothing role = iota
	object
	hook
)

// manifests parses rendered files into objects, in the order in which `helm template` prints them:
// CRDs, then objects in install order, then hooks.
func (c *documentCache) manifests(
	of *chart.Chart, files map[string]string, crds bool,
) ([]manifest, *failure) {
	var found []manifest
	if crds {
		for _, crd := range of.CRDObjects() {
			for index, text := range split(string(crd.File.Data)) {
				object, _, failed := parseDocument(crd.Filename, index, text)
				if failed != nil {
					return nil, failed
				}
				if object != nil {
					found = append(found, *object)
				}
			}
		}
	}
	var objects, hooks []*document
	for _, source := range sortedKeys(files) {
		for index, text := range split(files[source]) {
			one := c.get(source, index, text)
			switch {
			case one.failed != nil:
				return nil, one.failed
			case one.role == object:
				objects = append(objects, one)
			case one.role == hook:
				hooks = append(hooks, one)
			}
		}
	}
	for _, list := range [][]*document{objects, hooks} {
		sort.SliceStable(list, func(i, j int) bool { return before(list[i].kind, list[j].kind) })
		for _, one := range list {
			found = append(found, one.object)
		}
	}
	return found, nil
}

func (c *documentCache) get(source string, index int, text string) *document {
	key := sha256.Sum256(fmt.Appendf(nil, "%s\x00%d\x00%s", source, index, text))
	c.mutex.Lock()
	one := c.kept[key]
	c.mutex.Unlock()
	if one != nil {
		return one
	}
	one = readDocument(source, index, text)
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if len(c.kept) >= mostDocuments {
		clear(c.kept)
	}
	c.kept[key] = one
	return one
}

var installOrder = func() map[string]int {
	order := map[string]int{}
	for position, kind := range releaseutil.InstallOrder {
		order[kind] = position
	}
	return order
}()

// before tells whether Helm installs a kind before another: known kinds in Helm's order, then the
// others by name.
func before(kind, other string) bool {
	position, known := installOrder[kind]
	otherPosition, otherKnown := installOrder[other]
	switch {
	case known && otherKnown:
		return position < otherPosition
	case known != otherKnown:
		return known
	}
	return kind < other
}

func readDocument(source string, index int, text string) *document {
	read, head, failed := parseDocument(source, index, text)
	if failed != nil || read == nil {
		return &document{failed: failed}
	}
	one := &document{role: object, kind: head.Kind, object: *read}
	if events, isHook := hookEvents(head); isHook {
		one.role = hook
		if !known(events) {
			one.role = nothing // Helm drops a hook for an event that it does not know
		}
	}
	return one
}

// hookEvents returns the events that a hook is for.
func hookEvents(head releaseutil.SimpleHead) ([]string, bool) {
	if head.Metadata == nil {
		return nil, false
	}
	text, isHook := head.Metadata.Annotations[release.HookAnnotation]
	return strings.Split(text, ","), isHook
}

func known(events []string) bool {
	for _, event := range events {
		if !slices.Contains(helmEvents, strings.ToLower(strings.TrimSpace(event))) {
			return false
		}
	}
	return true
}

var helmEvents = []string{
	release.HookPreInstall.String(), release.HookPostInstall.String(),
	release.HookPreDelete.String(), release.HookPostDelete.String(),
	release.HookPreUpgrade.String(), release.HookPostUpgrade.String(),
	release.HookPreRollback.String(), release.HookPostRollback.String(),
	release.HookTest.String(), "test-success",
}

// parseDocument reads a document as Kubernetes would, except that a key given twice is an error: of
// the two values one is lost, and nobody meant that. A document of comments gives no object.
func parseDocument(
	source string, index int, text string,
) (*manifest, releaseutil.SimpleHead, *failure) {
	var head releaseutil.SimpleHead
	object, err := yaml.YAMLToJSONStrict([]byte(text))
	if err == nil && bytes.Equal(object, []byte("null")) {
		return nil, head, nil
	}
	if err == nil && object[0] != '{' {
		err = fmt.Errorf("it is no object but %.40s", object)
	}
	if err == nil && json.Unmarshal(object, &head) != nil {
		// Helm reads the head from YAML, which takes a number where a string belongs.
		err = yaml.Unmarshal([]byte(text), &head)
	}
	if err != nil {
		return nil, head, yamlFailure(source, index, text, err)
	}
	digest := sha256.Sum256(object)
	return &manifest{
		Source: source,
		Index:  index,
		Digest: hex.EncodeToString(digest[:16]),
		Object: object,
	}, head, nil
}

// split returns a file's documents in their order. It is releaseutil.SplitManifests without its
// regular expression, (?m)^---[ \t]*, which took a tenth of a render.
func split(text string) []string {
	var documents []string
	rest := "\n" + strings.TrimLeftFunc(text, unicode.IsSpace)
	for more := true; more; {
		var document string
		document, rest, more = strings.Cut(rest, "\n"+separator)
		if more {
			document += "\n"
		}
		if document = strings.TrimLeftFunc(document, unicode.IsSpace); document != "" {
			documents = append(documents, document)
		}
		rest = strings.TrimLeft(rest, " \t")
	}
	return documents
}

const separator = "---"

func sortedKeys(of map[string]string) []string {
	keys := make([]string, 0, len(of))
	for key := range of {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	return keys
}

var yamlLine = regexp.MustCompile(`line (\d+)`)

// yamlFailure shows the rendered lines around the error: the template's line is not known, and the
// rendered text is nowhere to be seen otherwise.
func yamlFailure(source string, index int, text string, err error) *failure {
	failed := &failure{
		Kind:     "yaml",
		Template: source,
		Message:  fmt.Sprintf("rendered document %d is not valid: %v", index+1, err),
	}
	if line := yamlLine.FindStringSubmatch(err.Error()); line != nil {
		number, _ := strconv.Atoi(line[1])
		failed.Message += "\n" + around(text, number)
	}
	return failed
}

// around returns the lines about line number (from 1), which is marked.
func around(text string, number int) string {
	var shown strings.Builder
	for i, line := range strings.Split(text, "\n") {
		if i+1 < number-3 || i+1 > number+2 {
			continue
		}
		mark := " "
		if i+1 == number {
			mark = ">"
		}
		fmt.Fprintf(&shown, "%s %4d | %s\n", mark, i+1, line)
	}
	return strings.TrimRight(shown.String(), "\n")
}
