package main

import (
	"context"
	"fmt"
	"path"
	"sort"
	"strings"
	"sync"
	"text/template/parse"

	"helm.sh/helm/v4/pkg/chart/common"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
)

// branch is a part of a template that some renders run and others do not.
type branch struct {
	ID       string `json:"id"`
	Template string `json:"template"`
	Line     int    `json:"line"`     // of the tag that opens the branch, from 1
	Column   int    `json:"column"`   // of that tag, from 1
	EndLine  int    `json:"end_line"` // of the last thing in the branch
	Kind     string `json:"kind"`     // if, else, with, with-else, range, range-else, define
	Text     string `json:"text"`     // the tag's own words
	Implicit bool   `json:"implicit"` // an else that nobody wrote: the condition was false
}

// probed is a chart whose templates report the branches that they enter.
type probed struct {
	chart    *chart.Chart
	branches []branch
}

// instrumentedText is one template with a probe at the start of each branch.
type instrumentedText struct {
	text     string
	branches []branch
}

// probeCache keeps instrumented templates by name and text.
type probeCache struct {
	mutex sync.Mutex
	kept  map[string]*instrumentedText
}

// instrument returns the chart with probes in all templates, its subcharts' too.
func (c *probeCache) instrument(of *chart.Chart) (*probed, *failure) {
	result := &probed{chart: clone(of)}
	if err := c.walk(result.chart, result); err != nil {
		return nil, templateFailure(err)
	}
	sort.SliceStable(result.branches, func(i, j int) bool {
		a, b := result.branches[i], result.branches[j]
		if a.Template != b.Template {
			return a.Template < b.Template
		}
		return a.Line < b.Line || a.Line == b.Line && a.Column < b.Column
	})
	return result, nil
}

func (c *probeCache) walk(of *chart.Chart, result *probed) error {
	templates := make([]*common.File, len(of.Templates))
	for i, file := range of.Templates {
		done, err := c.one(path.Join(of.ChartFullPath(), file.Name), string(file.Data))
		if err != nil {
			return err
		}
		templates[i] = &common.File{Name: file.Name, Data: []byte(done.text)}
		result.branches = append(result.branches, done.branches...)
	}
	of.Templates = templates
	for _, child := range of.Dependencies() {
		if err := c.walk(child, result); err != nil {
			return err
		}
	}
	return nil
}

func (c *probeCache) one(name, text string) (*instrumentedText, error) {
	key := name + "\x00" + text
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if found := c.kept[key]; found != nil {
		return found, nil
	}
	done, err := instrumentText(name, text)
	if err == nil {
		c.kept[key] = done
	}
	return done, err
}

// parseTemplate returns the trees of a file (its own, and one a define) in the order of the text.
func parseTemplate(name, text string) ([]*parse.Tree, error) {
	tree := parse.New(name)
	tree.Mode = parse.SkipFuncCheck
	set := map[string]*parse.Tree{}
	if _, err := tree.Parse(text, "", "", set); err != nil {
		return nil, err
	}
	trees := make([]*parse.Tree, 0, len(set))
	for _, one := range set {
		trees = append(trees, one)
	}
	sort.Slice(trees, func(i, j int) bool { return trees[i].Root.Pos < trees[j].Root.Pos })
	return trees, nil
}

// instrumentText puts probes into the trees of a file and prints them as a template again.
// Printing loses comments and line numbers, nothing that the output depends on: the parser has
// already applied the trim markers to the text.
func instrumentText(name, text string) (*instrumentedText, error) {
	trees, err := parseTemplate(name, text)
	if err != nil {
		return nil, err
	}
	work := &instrumentation{name: name, text: text}
	var printed strings.Builder
	for _, tree := range trees {
		work.list(tree.Root)
		if tree.Name == name {
			printed.WriteString(tree.Root.String())
			continue
		}
		tag := max(strings.LastIndex(text[:tree.Root.Pos], "define"),
			strings.LastIndex(text[:tree.Root.Pos], "block"))
		probe := work.branch("define", tag, tree.Root, fmt.Sprintf("define %q", tree.Name), false)
		fmt.Fprintf(&printed, "{{define %q}}%s%s{{end}}", tree.Name, probe.Text, tree.Root)
	}
	return &instrumentedText{printed.String(), work.branches}, nil
}

// instrumentation is the state of one walk over a file.
type instrumentation struct {
	name, text string
	branches   []branch
}

// list puts probes into the branches below a list of nodes.
func (w *instrumentation) list(of *parse.ListNode) {
	for _, node := range of.Nodes {
		switch node := node.(type) {
		case *parse.TextNode:
			keepBraces(node)
		case *parse.IfNode:
			w.control("if", "else", &node.BranchNode)
		case *parse.WithNode:
			w.control("with", "with-else", &node.BranchNode)
		case *parse.RangeNode:
			w.control("range", "range-else", &node.BranchNode)
		}
	}
}

// keepBraces prints a "{" at the end of a text as an action: what follows may be printed as "{{",
// where the template's author had a trim marker or a comment between the two.
func keepBraces(node *parse.TextNode) {
	kept := strings.TrimRight(string(node.Text), "{")
	if braces := string(node.Text[len(kept):]); braces != "" {
		node.Text = fmt.Appendf(nil, "%s{{%q}}", kept, braces)
	}
}

func (w *instrumentation) control(kind, elseKind string, node *parse.BranchNode) {
	at := int(node.Pipe.Pos)
	tag := kind + " " + node.Pipe.String()
	w.list(node.List)
	entered := w.branch(kind, at, node.List, tag, false)
	node.List.Nodes = append([]parse.Node{entered}, node.List.Nodes...)

	if isChain(node.ElseList) { // "else if": its own two branches say it all
		w.list(node.ElseList)
		return
	}
	implicit := node.ElseList == nil
	elseAt := at
	if implicit {
		node.ElseList = &parse.ListNode{NodeType: parse.NodeList, Pos: node.List.Pos}
	} else {
		elseAt = strings.LastIndex(w.text[:node.ElseList.Pos], "else")
		w.list(node.ElseList)
	}
	skipped := w.branch(elseKind, elseAt, node.ElseList, "else of "+tag, implicit)
	node.ElseList.Nodes = append([]parse.Node{skipped}, node.ElseList.Nodes...)
}

// isChain tells whether an else holds nothing but another control.
func isChain(list *parse.ListNode) bool {
	if list == nil || len(list.Nodes) != 1 {
		return false
	}
	switch list.Nodes[0].(type) {
	case *parse.IfNode, *parse.WithNode:
		return true
	}
	return false
}

// probeGroup is the apiVersion that probes look up: no cluster has it.
const probeGroup = "stackproof/coverage"

// branch notes a branch and returns its probe: a call of Helm's lookup, the one function that
// hands control to us during a render. The probe is text that prints as an action.
func (w *instrumentation) branch(
	kind string, at int, body *parse.ListNode, tag string, implicit bool,
) *parse.TextNode {
	at = max(strings.LastIndex(w.text[:max(at, 0)], "{{"), 0)
	before := w.text[:at]
	line := strings.Count(before, "\n") + 1
	column := at - strings.LastIndex(before, "\n")
	found := branch{
		ID:       fmt.Sprintf("%s:%d:%d:%s", w.name, line, column, kind),
		Template: w.name,
		Line:     line,
		Column:   column,
		EndLine:  max(line, w.lastLine(body)),
		Kind:     kind,
		Text:     tag,
		Implicit: implicit,
	}
	w.branches = append(w.branches, found)
	probe := fmt.Sprintf(`{{$stackproof := lookup %q %q "" ""}}`, probeGroup, found.ID)
	return &parse.TextNode{NodeType: parse.NodeText, Pos: body.Pos, Text: []byte(probe)}
}

// lastLine is the line on which the last thing of a list begins or, for text, ends.
func (w *instrumentation) lastLine(body *parse.ListNode) int {
	if len(body.Nodes) == 0 {
		return 0
	}
	last := body.Nodes[len(body.Nodes)-1]
	end := int(last.Position())
	if text, isText := last.(*parse.TextNode); isText {
		end = min(end+len(strings.TrimRight(string(text.Text), " \n")), len(w.text))
	}
	return strings.Count(w.text[:end], "\n") + 1
}

// recorder is the cluster that templates look into: it is empty, and notes the probes.
type recorder struct{ entered map[string]bool }

func newRecorder() recorder { return recorder{entered: map[string]bool{}} }

// GetClientFor implements engine.ClientProvider.
func (r recorder) GetClientFor(
	apiVersion, kind string,
) (dynamic.NamespaceableResourceInterface, bool, error) {
	if apiVersion == probeGroup {
		r.entered[kind] = true
	}
	return emptyResource{}, true, nil
}

func (r recorder) hits() []string {
	ids := make([]string, 0, len(r.entered))
	for id := range r.entered {
		ids = append(ids, id)
	}
	sort.Strings(ids)
	return ids
}

// emptyResource is a kind of which there are no objects; lookup uses only these three methods.
type emptyResource struct {
	dynamic.NamespaceableResourceInterface
}

var notFound = apierrors.NewNotFound(schema.GroupResource{}, "")

func (emptyResource) Namespace(string) dynamic.ResourceInterface { return emptyResource{} }

func (emptyResource) Get(
	context.Context, string, metav1.GetOptions, ...string,
) (*unstructured.Unstructured, error) {
	return nil, notFound
}

func (emptyResource) List(
	context.Context, metav1.ListOptions,
) (*unstructured.UnstructuredList, error) {
	return nil, notFound
}
