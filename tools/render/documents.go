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

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/release"
	"helm.sh/helm/v3/pkg/releaseutil"
	"sigs.k8s.io/yaml"
)

// fileCache keeps parsed files by path and text. Of the many renders of a chart most give the same
// text for most of its templates, and parsing costs more than executing them.
type fileCache struct {
	mutex sync.Mutex
	kept  map[[sha256.Size]byte]*parsedFile
}

// mostFiles bounds the cache; it is emptied when full.
const mostFiles = 50_000

// parsedFile is what one rendered file holds, each list in Helm's install order.
type parsedFile struct {
	objects, hooks []parsedObject
	failed         *failure
}

type parsedObject struct {
	kind string
	manifest
}

// manifests parses rendered files into objects, in the order in which `helm template` prints them:
// CRDs, then objects in install order, then hooks.
func (c *fileCache) manifests(
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
	var objects, hooks []parsedObject
	for _, source := range sortedKeys(files) {
		file := c.get(source, files[source])
		if file.failed != nil {
			return nil, file.failed
		}
		objects = append(objects, file.objects...)
		hooks = append(hooks, file.hooks...)
	}
	for _, list := range [][]parsedObject{objects, hooks} {
		sort.SliceStable(list, func(i, j int) bool { return before(list[i].kind, list[j].kind) })
		for _, object := range list {
			found = append(found, object.manifest)
		}
	}
	return found, nil
}

func (c *fileCache) get(source, text string) *parsedFile {
	key := sha256.Sum256([]byte(source + "\x00" + text))
	c.mutex.Lock()
	file := c.kept[key]
	c.mutex.Unlock()
	if file != nil {
		return file
	}
	file = parseFile(source, text)
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if len(c.kept) >= mostFiles {
		clear(c.kept)
	}
	c.kept[key] = file
	return file
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

// parseFile reads the documents of a rendered file.
func parseFile(source, text string) *parsedFile {
	file := &parsedFile{}
	for index, document := range split(text) {
		object, head, failed := parseDocument(source, index, document)
		if failed != nil {
			return &parsedFile{failed: failed}
		}
		if object == nil {
			continue
		}
		found := parsedObject{head.Kind, *object}
		switch events, isHook := hookEvents(head); {
		case !isHook:
			file.objects = append(file.objects, found)
		case known(events):
			file.hooks = append(file.hooks, found)
		} // Helm drops a hook for an event that it does not know
	}
	return file
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
	// Splitting took the last newline off; Helm puts one back, and the end of a block needs it.
	object, err := yaml.YAMLToJSONStrict([]byte(text + "\n"))
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

// split returns a file's documents in their order.
func split(text string) []string {
	byName := releaseutil.SplitManifests(text)
	names := sortedKeys(byName)
	sort.Sort(releaseutil.BySplitManifestsOrder(names))
	documents := make([]string, len(names))
	for i, name := range names {
		documents[i] = byName[name]
	}
	return documents
}

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
