package main

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"golang.org/x/text/language"
	"golang.org/x/text/message"
	chart "helm.sh/helm/v4/pkg/chart/v2"
)

// schemaCache keeps compiled schemas by text. Helm compiles a schema for each render, which
// costs more than the render; the validator is the one that Helm uses, so is the verdict.
type schemaCache struct{ kept sync.Map }

const schemaURL = "file:///values.schema.json"

var english = message.NewPrinter(language.English)

// noNetwork refuses references that leave the chart: a render must not depend on the network.
type noNetwork struct{}

func (noNetwork) Load(url string) (any, error) {
	return nil, fmt.Errorf("values.schema.json refers to %s, outside of the chart", url)
}

func (c *schemaCache) compile(text []byte) (*jsonschema.Schema, error) {
	if found, ok := c.kept.Load(string(text)); ok {
		return found.(*jsonschema.Schema), nil
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	compiler := jsonschema.NewCompiler()
	compiler.UseLoader(noNetwork{})
	if err := compiler.AddResource(schemaURL, document); err != nil {
		return nil, err
	}
	compiled, err := compiler.Compile(schemaURL)
	if err == nil {
		c.kept.Store(string(text), compiled)
	}
	return compiled, err
}

// check validates coalesced values against the chart's schema, then its subcharts'.
func (c *schemaCache) check(of *chart.Chart, values map[string]any) *failure {
	var text strings.Builder
	var parts []badPart
	c.collect(of, values, nil, &text, &parts)
	if text.Len() == 0 {
		return nil
	}
	return &failure{
		Kind: "schema",
		Message: "values don't meet the specifications of the schema(s) in the following chart(s):\n" +
			text.String(),
		Values: parts,
	}
}

func (c *schemaCache) collect(
	of *chart.Chart, values map[string]any, under []string, text *strings.Builder, parts *[]badPart,
) {
	if of.Schema != nil {
		c.collectOne(of, values, under, text, parts)
	}
	for _, child := range of.Dependencies() {
		raw, given := values[child.Name()]
		if !given || raw == nil {
			continue
		}
		path := append(append([]string{}, under...), child.Name())
		below, isMap := raw.(map[string]any)
		if !isMap {
			problem := fmt.Sprintf("invalid type for values: expected object (map), got %T", raw)
			fmt.Fprintf(text, "%s:\n%s\n", child.Name(), problem)
			*parts = append(*parts, badPart{Path: path, Message: problem})
			continue
		}
		c.collect(child, below, path, text, parts)
	}
}

func (c *schemaCache) collectOne(
	of *chart.Chart, values map[string]any, under []string, text *strings.Builder, parts *[]badPart,
) {
	compiled, err := c.compile(of.Schema)
	if err == nil {
		err = compiled.Validate(values)
	}
	if err == nil {
		return
	}
	shown := strings.TrimPrefix(err.Error(), "jsonschema validation failed with '"+schemaURL+"#'\n")
	fmt.Fprintf(text, "%s:\n%s\n", of.Name(), shown)
	var invalid *jsonschema.ValidationError
	if errors.As(err, &invalid) {
		leaves(invalid, under, parts)
	} else {
		*parts = append(*parts, badPart{Path: under, Message: err.Error()})
	}
}

// leaves collects the errors that have no cause of their own: those name the key at fault.
func leaves(err *jsonschema.ValidationError, under []string, parts *[]badPart) {
	if len(err.Causes) > 0 {
		for _, cause := range err.Causes {
			leaves(cause, under, parts)
		}
		return
	}
	path := append(append([]string{}, under...), err.InstanceLocation...)
	if _, isRef := err.ErrorKind.(*kind.Reference); isRef {
		return
	}
	*parts = append(*parts, badPart{Path: path, Message: err.ErrorKind.LocalizedString(english)})
}
