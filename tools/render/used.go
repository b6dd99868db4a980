package main

import (
	"fmt"
	"path"
	"slices"
	"sort"
	"strings"
	"text/template/parse"

	chart "helm.sh/helm/v4/pkg/chart/v2"
)

// valueUse is a place where a template reads from .Values.
type valueUse struct {
	Path     []string `json:"path"` // "*" stands for the elements of a list or map
	How      string   `json:"how"`  // read: with all that is below; test: a condition
	Template string   `json:"template"`
	Line     int      `json:"line"`
}

// valuesUsed follows what the chart's templates do with .Values, through variables, with, range
// and includes. It knows no values, so what depends on them (a computed key) is "*".
func valuesUsed(of *chart.Chart) ([]valueUse, *failure) {
	work := &tracing{
		defines: map[string]source{}, entered: map[string]bool{}, seen: map[string]bool{},
	}
	var files []source
	if err := work.collect(of, nil, &files); err != nil {
		return nil, templateFailure(err)
	}
	for _, file := range files {
		work.enter(file, abstract{kind: isRoot, path: file.prefix})
	}
	sort.SliceStable(work.used, func(i, j int) bool {
		a, b := work.used[i], work.used[j]
		if order := slices.Compare(a.Path, b.Path); order != 0 {
			return order < 0
		}
		if a.Template != b.Template {
			return a.Template < b.Template
		}
		return a.Line < b.Line
	})
	return work.used, nil
}

// abstract is what is known of a value: where in .Values it comes from.
type abstract struct {
	kind   int
	path   []string            // isValues: below .Values; isRoot: the chart's own place in it
	fields map[string]abstract // isDict
	items  []abstract          // isList
	text   string              // isText
}

const (
	isUnknown = iota
	isRoot    // what a template file sees as dot
	isValues
	isDict
	isList
	isText // a string in the template: keys and names are found by it
)

// source is a parsed template: a file's own tree or a define.
type source struct {
	tree   *parse.Tree
	file   string
	text   string
	prefix []string // the chart's place in the values of the parent
}

// tracing is the state of one walk over a chart.
type tracing struct {
	defines map[string]source
	entered map[string]bool // templates, each with what it was given
	seen    map[string]bool
	used    []valueUse
}

func (t *tracing) collect(of *chart.Chart, prefix []string, files *[]source) error {
	for _, file := range of.Templates {
		name := path.Join(of.ChartFullPath(), file.Name)
		trees, err := parseTemplate(name, string(file.Data))
		if err != nil {
			return err
		}
		for _, tree := range trees {
			found := source{tree, name, string(file.Data), prefix}
			if tree.Name == name {
				*files = append(*files, found)
			} else {
				t.defines[tree.Name] = found
			}
		}
	}
	for _, child := range of.Dependencies() {
		if err := t.collect(child, below(prefix, child.Name()), files); err != nil {
			return err
		}
	}
	return nil
}

func below(path []string, keys ...string) []string {
	return append(slices.Clone(path), keys...)
}

// enter walks a template that is given dot, once for each different dot.
func (t *tracing) enter(of source, dot abstract) {
	key := fmt.Sprintf("%s %s %v", of.file, of.tree.Name, dot)
	if t.entered[key] {
		return
	}
	t.entered[key] = true
	scope := &scope{tracing: t, source: of, variables: map[string]abstract{"$": dot}}
	scope.list(of.tree.Root, dot)
}

// scope is the walk over one template. Variables are those assigned last, in the order of the text.
type scope struct {
	*tracing
	source
	variables map[string]abstract
}

func (s *scope) list(of *parse.ListNode, dot abstract) {
	if of == nil {
		return
	}
	for _, node := range of.Nodes {
		switch node := node.(type) {
		case *parse.ActionNode:
			value := s.pipe(node.Pipe, dot)
			if len(node.Pipe.Decl) == 0 {
				s.use(value, "read", node)
			}
		case *parse.TemplateNode:
			s.include(node.Name, s.pipe(node.Pipe, dot), node)
		case *parse.IfNode:
			s.use(s.pipe(node.Pipe, dot), "test", node)
			s.list(node.List, dot)
			s.list(node.ElseList, dot)
		case *parse.WithNode:
			value := s.pipe(node.Pipe, dot)
			s.use(value, "test", node)
			s.list(node.List, value)
			s.list(node.ElseList, dot)
		case *parse.RangeNode:
			s.list(node.List, s.element(node, dot))
			s.list(node.ElseList, dot)
		}
	}
}

// element sets the variables of a range and returns its dot.
func (s *scope) element(node *parse.RangeNode, dot abstract) abstract {
	declared := node.Pipe.Decl
	over := s.pipe(node.Pipe, dot)
	s.use(over, "test", node)
	element := abstract{}
	switch over.kind {
	case isValues:
		element = abstract{kind: isValues, path: below(over.path, "*")}
	case isList:
		if len(over.items) > 0 {
			element = over.items[0]
		}
	}
	if len(declared) > 0 {
		s.variables[declared[len(declared)-1].Ident[0]] = element
	}
	if len(declared) > 1 {
		s.variables[declared[0].Ident[0]] = abstract{}
	}
	return element
}

// pipe returns what a pipeline gives, and sets the variables that it declares.
func (s *scope) pipe(of *parse.PipeNode, dot abstract) abstract {
	if of == nil {
		return abstract{}
	}
	var value *abstract
	for _, command := range of.Cmds {
		result := s.command(command, dot, value)
		value = &result
	}
	for _, variable := range of.Decl {
		s.variables[variable.Ident[0]] = *value
	}
	return *value
}

// command evaluates one command; piped is what the command before it gave, its last argument.
func (s *scope) command(of *parse.CommandNode, dot abstract, piped *abstract) abstract {
	function, isCall := of.Args[0].(*parse.IdentifierNode)
	if !isCall {
		return s.value(of.Args[0], dot)
	}
	nodes := of.Args[1:]
	arguments := make([]abstract, len(nodes), len(nodes)+1)
	for i, node := range nodes {
		arguments[i] = s.value(node, dot)
	}
	if piped != nil {
		arguments = append(arguments, *piped)
	}
	return s.call(function.Ident, nodes, arguments, of)
}

// call knows the functions that hand their arguments on; all others read them.
func (s *scope) call(
	name string, nodes []parse.Node, arguments []abstract, at parse.Node,
) abstract {
	last := len(arguments) - 1
	switch {
	case name == "include" && last >= 1:
		if arguments[0].kind == isText {
			s.include(arguments[0].text, arguments[1], at)
			return abstract{}
		}
	case name == "dict":
		made := abstract{kind: isDict, fields: map[string]abstract{}}
		for i := 0; i < last; i += 2 {
			if arguments[i].kind == isText {
				made.fields[arguments[i].text] = arguments[i+1]
			}
		}
		return made
	case name == "list" || name == "tuple":
		return abstract{kind: isList, items: arguments}
	case (name == "index" || name == "get") && last >= 1:
		return s.index(arguments[0], nodes[min(1, len(nodes)):], arguments[1:])
	case name == "and" || name == "or" || name == "not" || name == "empty":
		for _, argument := range arguments {
			s.use(argument, "test", at)
		}
		return abstract{}
	case (name == "default" || name == "required" || name == "deepCopy") && last >= 0:
		for _, argument := range arguments[:last] {
			s.use(argument, "read", at)
		}
		return arguments[last]
	case name == "first" && last == 0 && arguments[0].kind == isList && len(arguments[0].items) > 0:
		return arguments[0].items[0]
	}
	for _, argument := range arguments {
		s.use(argument, "read", at)
	}
	return abstract{}
}

// index follows `index VALUE KEY…`: into lists by numbers in the template, into maps by strings.
func (s *scope) index(of abstract, nodes []parse.Node, keys []abstract) abstract {
	for i, key := range keys {
		switch {
		case of.kind == isList && i < len(nodes):
			number, ok := nodes[i].(*parse.NumberNode)
			if !ok || int(number.Int64) >= len(of.items) {
				return abstract{}
			}
			of = of.items[number.Int64]
		case key.kind == isText:
			of = of.field(key.text)
		default:
			of = of.field("*")
		}
	}
	return of
}

// include enters a define with what it is given.
func (s *scope) include(name string, given abstract, at parse.Node) {
	if named, known := s.defines[name]; known {
		s.enter(named, given)
		return
	}
	s.use(given, "read", at)
}

// value returns what a node stands for.
func (s *scope) value(of parse.Node, dot abstract) abstract {
	switch of := of.(type) {
	case *parse.DotNode:
		return dot
	case *parse.FieldNode:
		return dot.chain(of.Ident)
	case *parse.VariableNode:
		return s.variables[of.Ident[0]].chain(of.Ident[1:])
	case *parse.ChainNode:
		return s.value(of.Node, dot).chain(of.Field)
	case *parse.PipeNode:
		return s.pipe(of, dot)
	case *parse.StringNode:
		return abstract{kind: isText, text: of.Text}
	}
	return abstract{}
}

func (a abstract) chain(fields []string) abstract {
	for i, field := range fields {
		// In a helper that is given something unknown, .Values is still what it is called.
		if a.kind == isUnknown && field == "Values" {
			return abstract{kind: isValues}.chain(fields[i+1:])
		}
		a = a.field(field)
	}
	return a
}

func (a abstract) field(name string) abstract {
	switch a.kind {
	case isRoot:
		if name == "Values" {
			return abstract{kind: isValues, path: a.path}
		}
	case isValues:
		return abstract{kind: isValues, path: below(a.path, name)}
	case isDict:
		return a.fields[name]
	}
	return abstract{}
}

// use notes that a value is read or tested here.
func (s *scope) use(value abstract, how string, at parse.Node) {
	switch value.kind {
	case isDict:
		for _, field := range value.fields {
			s.use(field, how, at)
		}
	case isList:
		for _, item := range value.items {
			s.use(item, how, at)
		}
	case isValues:
		line := strings.Count(s.text[:at.Position()], "\n") + 1
		key := fmt.Sprint(value.path, how, s.file, line)
		if !s.seen[key] {
			s.seen[key] = true
			s.used = append(s.used, valueUse{value.path, how, s.file, line})
		}
	}
}
