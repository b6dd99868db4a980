package main

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// tricky holds what printing a parsed template could get wrong.
const tricky = `{{- define "helper" -}}
{{- if .enabled }}on{{ else }}off{{ end -}}
{{- end -}}
{{- /* a comment with {{ braces */ -}}
{{- $name := "shadow" -}}
kind: ConfigMap
metadata:
  name: {{ $name }}
data:
  braces: '{ {{- /* trimmed away */ -}} {{ "a" }} {
    {{- "b" }}}'
  literal: '{{ "{{" }} kept {{ ` + "`{{ raw }}`" + ` }}'
  chain: {{ (index .Values.list 0).name | default "none" | quote }}
  called: {{ include "helper" (dict "enabled" .Values.enabled) }}
  {{- with .Values.missing }}
  with: {{ . }}
  {{- else with .Values.enabled }}
  elsewith: {{ . }}
  {{- else }}
  neither: true
  {{- end }}
  {{- range $i, $one := .Values.list }}
  {{- if eq $i 1 }}{{ continue }}{{ end }}
  {{- if gt $i 2 }}{{ break }}{{ end }}
  item{{ $i }}: {{ $one.name }}
  {{- else }}
  empty: true
  {{- end }}
  {{- if eq $name "a" }}
  is: a
  {{- else if eq $name "shadow" }}
  is: shadow
  {{- else }}
  is: other
  {{- end }}
  {{- if not (lookup "v1" "Secret" "here" "none") }}
  found: nothing
  {{- end }}
  {{- $sum := 0 }}{{ range .Values.list }}{{ $sum = add $sum 1 }}{{ end }}
  sum: "{{ $sum }}"
  tpl: {{ tpl "{{ if .Values.enabled }}yes{{ end }}" . | quote }}
`

var trickyValues = []string{
	"enabled: true\nlist: [{name: one}, {name: two}, {name: three}, {name: four}]\n",
	"enabled: false\nlist: [{}]\nmissing: here\n",
}

func TestInstrumentedTemplatesGiveEqualBytes(t *testing.T) {
	chart := writeChart(t, map[string]string{"templates/a.yaml": tricky})
	for _, values := range trickyValues {
		asked := rendering(chart, valuesSource{YAML: values})
		asked.Text = true
		plain := mustDo(t, asked)
		asked.Coverage = true
		covered := mustDo(t, asked)
		if !maps.Equal(plain.Texts, covered.Texts) {
			t.Errorf("plain:\n%s\nwith coverage:\n%s",
				plain.Texts["demo/templates/a.yaml"], covered.Texts["demo/templates/a.yaml"])
		}
		if plain.Hits != nil || covered.Hits == nil {
			t.Error("branches are told without being asked for, or not at all")
		}
	}
}

func TestBranchesHit(t *testing.T) {
	chart := writeChart(t, map[string]string{"templates/a.yaml": tricky})
	asked := rendering(chart, valuesSource{YAML: trickyValues[0]})
	asked.Coverage = true
	hits := mustDo(t, asked).Hits
	asked.Op = "branches"
	known := map[string]string{}
	for _, branch := range mustDo(t, asked).Branches {
		if known[branch.ID] != "" {
			t.Errorf("two branches have the id %s", branch.ID)
		}
		known[branch.ID] = branch.Text
	}
	for id, want := range map[string]bool{
		"demo/templates/a.yaml:1:1:define":      true,
		"demo/templates/a.yaml:2:1:if":          true,
		"demo/templates/a.yaml:2:21:else":       false,
		"demo/templates/a.yaml:15:3:with":       false,
		"demo/templates/a.yaml:17:3:with":       true,
		"demo/templates/a.yaml:19:3:with-else":  false,
		"demo/templates/a.yaml:22:3:range":      true,
		"demo/templates/a.yaml:26:3:range-else": false,
		"demo/templates/a.yaml:23:3:if":         true,
		"demo/templates/a.yaml:23:3:else":       true, // nobody wrote it
		"demo/templates/a.yaml:29:3:if":         false,
		"demo/templates/a.yaml:31:3:if":         true,
		"demo/templates/a.yaml:33:3:else":       false,
	} {
		if known[id] == "" {
			t.Errorf("there is no branch %s", id)
		}
		if slices.Contains(hits, id) != want {
			t.Errorf("%s (%s): hit is %v", id, known[id], !want)
		}
	}
	for _, hit := range hits {
		if known[hit] == "" {
			t.Errorf("the branch %s was hit, but is not listed", hit)
		}
	}
}

func TestErrorsWithCoverageKeepTheirLines(t *testing.T) {
	chart := writeChart(t, map[string]string{
		"templates/a.yaml": "{{/* one\ntwo */}}\nkind: A\n{{ if true }}{{ fail \"stop\" }}{{ end }}\n",
	})
	asked := rendering(chart)
	asked.Coverage = true
	if failed := mustFail(t, asked, "template", "stop"); failed.Line != 4 {
		t.Errorf("the error is said to be on line %d", failed.Line)
	}
}

func TestValuesUsed(t *testing.T) {
	chart := writeChart(t, map[string]string{
		"templates/_h.tpl": `{{ define "image" }}{{ (index .root.Values .part).image }}{{ end }}
{{ define "whole" }}{{ .Values.helper.key }}{{ end }}`,
		"templates/a.yaml": `{{ .Values.plain }}
{{ if .Values.switch }}{{ end }}
{{ with .Values.outer }}{{ .inner }}{{ $.Values.dollar }}{{ end }}
{{ range $key, $one := .Values.many }}{{ $one.name }}{{ end }}
{{ $kept := .Values.kept | default dict }}{{ $kept.below }}
{{ include "image" (dict "root" $ "part" "mimir") }}
{{ template "whole" . }}
{{ toYaml .Values.tree | nindent 2 }}
{{ index .Values "some" "key" }}`,
	})
	used := map[string]bool{}
	for _, use := range mustDo(t, &request{Op: "values_used", Chart: chart}).Used {
		used[strings.Join(use.Path, ".")+" "+use.How] = true
	}
	want := []string{
		"dollar read", "helper.key read", "kept.below read", "many test", "many.*.name read",
		"mimir.image read", "outer test", "outer.inner read", "plain read", "some.key read",
		"switch test", "tree read",
	}
	if got := slices.Sorted(maps.Keys(used)); !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}
