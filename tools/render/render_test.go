package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"

	releaseutil "helm.sh/helm/v4/pkg/release/v1/util"
)

// writeChart writes a chart of these files (Chart.yaml aside) and returns its path.
func writeChart(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	all := map[string]string{"Chart.yaml": "apiVersion: v2\nname: demo\nversion: 0.1.0\n"}
	maps.Copy(all, files)
	for name, text := range all {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func rendering(chart string, values ...valuesSource) *request {
	return &request{
		Op:          "render",
		Chart:       chart,
		Values:      values,
		Release:     releaseOptions{Name: "one", Namespace: "here"},
		KubeVersion: "1.37.0",
	}
}

func mustDo(t *testing.T, asked *request) *response {
	t.Helper()
	reply, failed := newRenderer().do(asked)
	if failed != nil {
		t.Fatalf("%s: %s", failed.Kind, failed.Message)
	}
	return reply
}

func mustFail(t *testing.T, asked *request, kind, message string) *failure {
	t.Helper()
	_, failed := newRenderer().do(asked)
	if failed == nil {
		t.Fatalf("no error, but one of kind %s was due", kind)
	}
	if failed.Kind != kind || !strings.Contains(failed.Message, message) {
		t.Fatalf("got %s: %s; want %s: …%s…", failed.Kind, failed.Message, kind, message)
	}
	return failed
}

func sources(reply *response) []string {
	var found []string
	for _, one := range reply.Manifests {
		found = append(found, fmt.Sprintf("%s#%d", filepath.Base(one.Source), one.Index))
	}
	return found
}

func TestOrderIsHelms(t *testing.T) {
	chart := writeChart(t, map[string]string{
		"templates/a.yaml": "kind: Deployment\napiVersion: apps/v1\n---\n# nothing\n---\n" +
			"kind: ConfigMap\napiVersion: v1\n",
		"templates/b.yaml": "kind: Zebra\n---\nkind: Apple\n---\nkind: Service\n",
		"templates/c.yaml": "kind: Job\nmetadata:\n  annotations: {helm.sh/hook: pre-install}\n---\n" +
			"kind: Job\nmetadata:\n  annotations: {helm.sh/hook: no-such-event}\n",
		"templates/NOTES.txt": "hello {{ .Release.Name }}",
	})
	reply := mustDo(t, rendering(chart))
	want := []string{"a.yaml#2", "b.yaml#2", "a.yaml#0", "b.yaml#1", "b.yaml#0", "c.yaml#0"}
	if got := sources(reply); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if reply.Notes != "hello one" {
		t.Errorf("notes are %q", reply.Notes)
	}
}

func TestValuesMergeAsHelmsFiles(t *testing.T) {
	chart := writeChart(t, map[string]string{
		"values.yaml":      "a: {one: 1, two: 2}\nlist: [1]\ngone: 1\n",
		"templates/a.yaml": "kind: A\nvalues: {{ .Values | toJson }}\n",
	})
	reply := mustDo(t, rendering(chart,
		valuesSource{YAML: "a: {one: on}\nlist: [2, 3]\ngone: null\n"},
		valuesSource{JSON: map[string]any{"a": map[string]any{"three": "no"}}}))
	want := `{"kind":"A","values":{"a":{"one":true,"three":"no","two":2},"list":[2,3]}}`
	if got := string(reply.Manifests[0].Object); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestABlockAtTheEndKeepsItsNewline(t *testing.T) {
	chart := writeChart(t, map[string]string{
		"templates/a.yaml": "kind: A\ntext: |\n  last line\n\n\n",
	})
	want := `{"kind":"A","text":"last line\n"}`
	if got := string(mustDo(t, rendering(chart)).Manifests[0].Object); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestSubchartsFollowTheirConditions(t *testing.T) {
	chart := writeChart(t, map[string]string{
		"Chart.yaml": "apiVersion: v2\nname: demo\nversion: 0.1.0\ndependencies:\n" +
			"  - {name: sub, version: 0.1.0, condition: sub.enabled}\n",
		"values.yaml":                 "sub: {enabled: true}\n",
		"charts/sub/Chart.yaml":       "apiVersion: v2\nname: sub\nversion: 0.1.0\n",
		"charts/sub/values.yaml":      "word: default\n",
		"charts/sub/templates/s.yaml": "kind: S\nword: {{ .Values.word }}\n",
	})
	asked := rendering(chart, valuesSource{YAML: "sub: {word: given}"})
	asked.Digest = "kept" // a kept chart must not remember that a subchart was off
	program := newRenderer()
	for _, enabled := range []bool{false, true, false} {
		asked.Values[0] = valuesSource{YAML: fmt.Sprintf("sub: {word: given, enabled: %v}", enabled)}
		reply, failed := program.do(asked)
		if failed != nil {
			t.Fatal(failed.Message)
		}
		if got := len(reply.Manifests); (got == 1) != enabled {
			t.Errorf("enabled=%v gave %d manifests", enabled, got)
		}
		if enabled && !strings.Contains(string(reply.Manifests[0].Object), "given") {
			t.Errorf("got %s", reply.Manifests[0].Object)
		}
	}
}

func TestOverlayLeavesTheKeptChartAlone(t *testing.T) {
	chart := writeChart(t, map[string]string{"templates/a.yaml": "kind: A\n"})
	program := newRenderer()
	asked := rendering(chart)
	asked.Digest = "kept"
	changed := *asked
	text := "kind: B\n"
	changed.Files = map[string]*string{"templates/a.yaml": nil, "templates/b.yaml": &text}
	for _, step := range []struct {
		asked *request
		want  string
	}{{asked, "a.yaml#0"}, {&changed, "b.yaml#0"}, {asked, "a.yaml#0"}} {
		reply, failed := program.do(step.asked)
		if failed != nil {
			t.Fatal(failed.Message)
		}
		if got := sources(reply); !slices.Equal(got, []string{step.want}) {
			t.Errorf("got %v, want %s", got, step.want)
		}
	}
}

func TestErrorsSayWhere(t *testing.T) {
	chart := writeChart(t, map[string]string{
		"templates/_h.tpl": "{{- define \"helper\" -}}\n{{ .Values.a.b.c }}\n{{- end }}\n",
		"templates/a.yaml": "kind: A\n{{ if .Values.fail }}{{ include \"helper\" . }}{{ end }}\n" +
			"{{ if .Values.twice }}\nx: 1\nx: 2\n{{ end }}\n" +
			"{{ if .Values.broken }}\ny: [\n{{ end }}\n",
		"values.schema.json": `{"properties": {"number": {"type": "integer"}}}`,
	})
	given := func(yaml string) *request { return rendering(chart, valuesSource{YAML: yaml}) }

	failed := mustFail(t, given("fail: true"), "template", "nil pointer")
	if failed.Template != "demo/templates/_h.tpl" || failed.Line != 2 {
		t.Errorf("the error is said to be in %s:%d", failed.Template, failed.Line)
	}
	failed = mustFail(t, given("twice: true"), "yaml", `key "x" already set`)
	if failed.Template != "demo/templates/a.yaml" || !strings.Contains(failed.Message, "| x: 2") {
		t.Errorf("the error is said to be in %s: %s", failed.Template, failed.Message)
	}
	mustFail(t, given("broken: true"), "yaml", "did not find expected node content")
	failed = mustFail(t, given("number: x"), "schema", "at '/number'")
	if len(failed.Values) != 1 || !slices.Equal(failed.Values[0].Path, []string{"number"}) {
		t.Errorf("the schema refuses %v", failed.Values)
	}
	mustFail(t, given("a: ["), "load", "failed to parse values 1")
	mustFail(t, rendering(chart+"/none"), "load", "no such file")
	asked := given("")
	asked.Release.Name = "Not A Name"
	mustFail(t, asked, "usage", "release name")
	asked = given("")
	asked.KubeVersion = ""
	mustFail(t, asked, "usage", "kube version")
}

func TestSchemaMayNotReferToTheNetwork(t *testing.T) {
	chart := writeChart(t, map[string]string{
		"values.schema.json": `{"$ref": "https://schemas.example/x.json"}`,
	})
	mustFail(t, rendering(chart), "schema", "outside of the chart")
}

func TestChartThatNeedsAnotherKubernetes(t *testing.T) {
	chart := writeChart(t, map[string]string{
		"Chart.yaml": "apiVersion: v2\nname: demo\nversion: 0.1.0\nkubeVersion: '<1.30.0'\n",
	})
	mustFail(t, rendering(chart), "load", "incompatible with Kubernetes v1.37.0")
}

func TestServeAnswersEveryLineAndSendsAnObjectOnce(t *testing.T) {
	chart := writeChart(t, map[string]string{"templates/a.yaml": "kind: A\n"})
	var input, output bytes.Buffer
	for id := range 20 {
		asked := rendering(chart)
		asked.ID = int64(id)
		line, err := json.Marshal(asked)
		if err != nil {
			t.Fatal(err)
		}
		input.Write(append(line, '\n'))
	}
	input.WriteString("no json\n")
	if err := serve(&input, &output); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(output.String()), "\n")
	answered, objects, refused := map[int64]bool{}, 0, 0
	for _, line := range lines {
		var reply response
		if err := json.Unmarshal([]byte(line), &reply); err != nil {
			t.Fatal(err)
		}
		if reply.Error != nil {
			refused++
			continue
		}
		answered[reply.ID] = true
		if reply.Manifests[0].Object != nil {
			objects++
			if objects > 1 || len(answered) > 1 {
				t.Error("the object came again, or after its digest")
			}
		}
	}
	if len(answered) != 20 || objects != 1 || refused != 1 {
		t.Errorf("%d answers, %d objects, %d refused", len(answered), objects, refused)
	}
}

func TestSplitIsHelms(t *testing.T) {
	parts := []string{"---", "-", "\n", "\n---\n", " ", "\t", "a", "# b", "\v", "\u00a0", "\r\n"}
	chance := rand.New(rand.NewPCG(1, 2))
	for range 200_000 {
		var text strings.Builder
		for range chance.IntN(12) {
			text.WriteString(parts[chance.IntN(len(parts))])
		}
		byName := releaseutil.SplitManifests(text.String())
		names := sortedKeys(byName)
		sort.Sort(releaseutil.BySplitManifestsOrder(names))
		var want []string
		for _, name := range names {
			want = append(want, byName[name])
		}
		if got := split(text.String()); !slices.Equal(got, want) {
			t.Fatalf("%q: got %q, want %q", text.String(), got, want)
		}
	}
}
