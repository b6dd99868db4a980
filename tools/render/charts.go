package main

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"helm.sh/helm/v4/pkg/chart/loader/archive"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
)

// chartCache keeps loaded charts by digest. A kept chart is never changed: renders work
// on a clone.
type chartCache struct {
	mutex sync.Mutex
	kept  map[string]*chart.Chart
}

// get returns the chart of a request, with the request's files laid over it.
func (c *chartCache) get(asked *request) (*chart.Chart, *failure) {
	if asked.Chart == "" {
		return nil, usage("request names no chart")
	}
	loaded, err := c.load(asked.Chart, asked.Digest)
	if err == nil && len(asked.Files) > 0 {
		loaded, err = overlay(loaded, asked.Files)
	}
	if err == nil {
		err = installable(loaded)
	}
	if err != nil {
		return nil, loadFailure(err)
	}
	return loaded, nil
}

func (c *chartCache) load(path, digest string) (*chart.Chart, error) {
	if digest == "" {
		return loader.Load(path)
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if found := c.kept[digest]; found != nil {
		return found, nil
	}
	loaded, err := loader.Load(path)
	if err == nil {
		c.kept[digest] = loaded
	}
	return loaded, err
}

// installable refuses what `helm template` refuses: library charts and missing dependencies.
func installable(loaded *chart.Chart) error {
	if kind := loaded.Metadata.Type; kind != "" && kind != "application" {
		return fmt.Errorf("%s charts are not installable", kind)
	}
	var missing []string
	for _, wanted := range loaded.Metadata.Dependencies {
		there := slices.ContainsFunc(loaded.Dependencies(), func(c *chart.Chart) bool {
			return c.Name() == wanted.Name
		})
		if !there {
			missing = append(missing, wanted.Name)
		}
	}
	if missing != nil {
		return fmt.Errorf(
			"found in Chart.yaml, but missing in charts/ directory: %s. "+
				"You may need to run `helm dependency build` to fetch missing dependencies",
			strings.Join(missing, ", "))
	}
	return nil
}

// overlay loads the chart again with some of its files replaced, added or removed.
func overlay(base *chart.Chart, files map[string]*string) (*chart.Chart, error) {
	var merged []*archive.BufferedFile
	for _, file := range base.Raw {
		if _, replaced := files[file.Name]; !replaced {
			merged = append(merged, &archive.BufferedFile{Name: file.Name, Data: file.Data})
		}
	}
	for name, text := range files {
		if text != nil {
			merged = append(merged, &archive.BufferedFile{Name: name, Data: []byte(*text)})
		}
	}
	return loader.LoadFiles(merged)
}

// clone copies what resolving dependencies changes: the tree of charts, their metadata and
// the values they hold. Files and templates are shared, because nothing writes to them.
func clone(original *chart.Chart) *chart.Chart {
	metadata := *original.Metadata
	metadata.Dependencies = nil
	for _, wanted := range original.Metadata.Dependencies {
		own := *wanted
		own.ImportValues = slices.Clone(wanted.ImportValues)
		metadata.Dependencies = append(metadata.Dependencies, &own)
	}
	copied := &chart.Chart{
		Raw:       original.Raw,
		Metadata:  &metadata,
		Lock:      original.Lock,
		Templates: original.Templates,
		Values:    original.Values,
		Schema:    original.Schema,
		Files:     original.Files,
	}
	for _, child := range original.Dependencies() {
		copied.AddDependency(clone(child))
	}
	return copied
}
