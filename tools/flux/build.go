package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/envsubst"
	generator "github.com/fluxcd/pkg/kustomize"
	"helm.sh/helm/v3/pkg/strvals"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/resmap"
	"sigs.k8s.io/kustomize/api/resource"
	kustypes "sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/kustomize/kyaml/openapi"
)

const (
	// notFetched begins what offline answers; noGit is what kustomize says without a `git`.
	notFetched = "nothing is fetched here"
	noGit      = "no 'git' program on path"
	// substituteLabel switches substitution off for one object.
	substituteLabel = "kustomize.toolkit.fluxcd.io/substitute"
)

// build does what kustomize-controller does before it applies: generate, build, substitute.
func build(asked *request, reply *response) (err error) {
	object := unstructured.Unstructured{Object: asked.Kustomization}
	path, _, err := unstructured.NestedString(asked.Kustomization, "spec", "path")
	if err != nil {
		return err
	}
	root, err := filepath.EvalSymlinks(asked.Root)
	if err != nil {
		return err
	}
	// As filepath-securejoin: a path that leaves the root begins there again.
	folder := filepath.Join(root, filepath.Join("/", path))
	files, err := newArtifact(root, asked.Ignore)
	if err != nil {
		return err
	}
	if !files.IsDir(folder) {
		return fmt.Errorf("there is no such folder among what Flux fetches: %s", path)
	}
	defer func() {
		reply.Read = files.names()
		if err != nil && (strings.Contains(err.Error(), notFetched) || strings.Contains(err.Error(), noGit)) {
			reply.Fetched = "something from elsewhere"
		}
	}()
	if err := files.generate(object, folder); err != nil {
		return err
	}
	built, err := kustomized(files, folder)
	if files.customSchema {
		openapi.ResetOpenAPI()
	}
	if err != nil {
		return fmt.Errorf("kustomize cannot build it: %w", withoutRoot(err, root))
	}
	undefined := map[string]bool{}
	for _, one := range built.Resources() {
		if one.GetName() == "" || one.GetKind() == "" || one.GetApiVersion() == "" {
			return fmt.Errorf("an object lacks apiVersion, kind or metadata.name: %s", one.String())
		}
		done, err := substitute(object, one, asked.Variables, undefined)
		if err != nil {
			return fmt.Errorf("%s/%s: %w", one.GetKind(), one.GetName(), err)
		}
		if done.GetName() == "" || done.GetKind() == "" {
			return fmt.Errorf("substitution leaves an object without a kind or a name: %s", done.String())
		}
		if err := reply.add(done, object); err != nil {
			return err
		}
	}
	reply.Undefined = slices.Sorted(maps.Keys(undefined))
	return nil
}

// kustomized is fluxcd/pkg/kustomize.Build, which reads the schemas of Kubernetes anew for each
// build: a fifth of a second. Here they stay until a kustomization brings its own.
func kustomized(files filesys.FileSystem, folder string) (resmap.ResMap, error) {
	return krusty.MakeKustomizer(&krusty.Options{
		LoadRestrictions: kustypes.LoadRestrictionsNone,
		PluginConfig:     kustypes.DisabledPluginConfig(),
	}).Run(files, folder)
}

// substitute puts variables into one object, and notes those that are undefined.
func substitute(
	of unstructured.Unstructured, one *resource.Resource, given map[string]string, undefined map[string]bool,
) (*resource.Resource, error) {
	after, found, err := unstructured.NestedMap(of.Object, "spec", "postBuild")
	if err != nil || !found {
		return one, err
	}
	own, _, err := unstructured.NestedStringMap(of.Object, "spec", "postBuild", "substitute")
	if err != nil {
		return nil, err
	}
	variables := map[string]string{}
	maps.Copy(variables, given)
	maps.Copy(variables, own)
	always := after["substituteStrategy"] == "Always"
	with := of.DeepCopy()
	if err := unstructured.SetNestedStringMap(
		with.Object, variables, "spec", "postBuild", "substitute",
	); err != nil {
		return nil, err
	}
	var before []byte
	asks := len(variables) > 0 || always
	if asks {
		if before, err = one.AsYAML(); err != nil {
			return nil, err
		}
	}
	// Without a cluster to look into (dry run): its variables are in `with`.
	done, err := generator.SubstituteVariables(
		context.Background(), nil, *with, one,
		generator.SubstituteWithDryRun(true), generator.SubstituteWithAlways(always),
	)
	if err != nil || done == nil { // nil: an object that switches it off
		return one, err
	}
	if asks {
		missing(string(before), variables, undefined)
	}
	return done, nil
}

// missing notes the variables of a text that have neither a value nor a default: strict
// evaluation stops at the first, so it is asked until it stops no more.
func missing(text string, variables map[string]string, into map[string]bool) {
	for {
		last, failed := "", false
		_, err := envsubst.Eval(text, func(name string) (string, bool) {
			value, known := variables[name]
			failed = !known && !into[name]
			last = name
			return value, !failed
		})
		if err == nil || !failed {
			return
		}
		into[last] = true
	}
}

// add puts an object into the response, with the metadata that the Flux object gives to all.
func (r *response) add(one *resource.Resource, from unstructured.Unstructured) error {
	data, err := one.MarshalJSON()
	if err != nil {
		return err
	}
	made := unstructured.Unstructured{}
	if err := json.Unmarshal(data, &made.Object); err != nil {
		return err
	}
	common := func(field string) map[string]string {
		found, _, _ := unstructured.NestedStringMap(from.Object, "spec", "commonMetadata", field)
		return found
	}
	if labels := common("labels"); len(labels) > 0 {
		made.SetLabels(merged(made.GetLabels(), labels))
	}
	if annotations := common("annotations"); len(annotations) > 0 {
		made.SetAnnotations(merged(made.GetAnnotations(), annotations))
	}
	data, err = json.Marshal(made.Object)
	r.Objects = append(r.Objects, data)
	return err
}

func merged(below, above map[string]string) map[string]string {
	both := map[string]string{}
	maps.Copy(both, below)
	maps.Copy(both, above)
	return both
}

func withoutRoot(err error, root string) error {
	return errors.New(strings.ReplaceAll(strings.ReplaceAll(err.Error(), root+"/", ""), root, "."))
}

// postRenderer is an entry of a HelmRelease's spec.postRenderers.
type postRenderer struct {
	Kustomize *struct {
		Patches []kustomize.Patch `json:"patches"`
		Images  []kustomize.Image `json:"images"`
	} `json:"kustomize"`
}

// render does what helm-controller does to rendered objects: kustomize builds them in memory.
func render(asked *request, reply *response) error {
	objects := asked.Objects
	for number, one := range asked.PostRenderers {
		if one.Kustomize == nil {
			continue
		}
		config := kustypes.Kustomization{Resources: []string{"objects.json"}}
		config.APIVersion, config.Kind = kustypes.KustomizationVersion, kustypes.KustomizationKind
		for _, patch := range one.Kustomize.Patches {
			config.Patches = append(config.Patches, kustypes.Patch{
				Patch: patch.Patch, Target: selector(patch.Target),
			})
		}
		for _, image := range one.Kustomize.Images {
			config.Images = append(config.Images, kustypes.Image{
				Name: image.Name, NewName: image.NewName, NewTag: image.NewTag, Digest: image.Digest,
			})
		}
		files := filesys.MakeFsInMemory()
		all := map[string]any{"apiVersion": "v1", "kind": "List", "items": objects}
		for name, content := range map[string]any{"kustomization.yaml": config, "objects.json": all} {
			text, err := json.Marshal(content)
			if err != nil {
				return err
			}
			if err := files.WriteFile(name, text); err != nil {
				return err
			}
		}
		built, err := kustomized(files, ".")
		if err != nil {
			return fmt.Errorf("postRenderers[%d]: %w", number, err)
		}
		objects = nil
		for _, made := range built.Resources() {
			data, err := made.MarshalJSON()
			if err != nil {
				return err
			}
			var object map[string]any
			if err := json.Unmarshal(data, &object); err != nil {
				return err
			}
			objects = append(objects, object)
		}
	}
	for _, object := range objects {
		data, err := json.Marshal(object)
		if err != nil {
			return err
		}
		reply.Objects = append(reply.Objects, data)
	}
	return nil
}

func selector(of *kustomize.Selector) *kustypes.Selector {
	if of == nil {
		return nil
	}
	made := &kustypes.Selector{
		LabelSelector: of.LabelSelector, AnnotationSelector: of.AnnotationSelector,
	}
	made.Group, made.Version, made.Kind = of.Group, of.Version, of.Kind
	made.Name, made.Namespace = of.Name, of.Namespace
	return made
}

// ignored tells which of some files Flux does not fetch.
func ignored(asked *request, reply *response) error {
	files, err := newArtifact(asked.Root, asked.Ignore)
	if err != nil {
		return err
	}
	for _, name := range asked.Files {
		if files.hides(filepath.Join(files.root, name)) {
			reply.Ignored = append(reply.Ignored, name)
		}
	}
	sort.Strings(reply.Ignored)
	return nil
}

// valueReference is an entry of a HelmRelease's spec.valuesFrom: values, or a text for one path.
type valueReference struct {
	Values  map[string]any `json:"values"`
	Path    string         `json:"path"`
	Text    string         `json:"text"`
	Literal bool           `json:"literal"`
}

// literal is how fluxcd/pkg/chartutil has Helm take a text as it is.
var literal = strings.NewReplacer(`\`, `\\`, `,`, `\,`, `[`, `\[`, `]`, `\]`, `{`, `\{`, `}`, `\}`)

// merge is ChartValuesFromReferences of fluxcd/pkg/chartutil, which would ask a cluster: values at a
// path change what is there by then, the HelmRelease's own values too.
func merge(asked *request, reply *response) error {
	made := map[string]any{}
	for _, from := range asked.ValuesFrom {
		if from.Path == "" {
			made = mergeMaps(made, from.Values)
			continue
		}
		made = mergeMaps(made, asked.Values)
		if err := from.put(made); err != nil {
			return fmt.Errorf("targetPath %s: %w", from.Path, err)
		}
	}
	reply.Values = mergeMaps(made, asked.Values)
	return nil
}

func (v valueReference) put(into map[string]any) error {
	if v.Literal {
		return strvals.ParseIntoString(v.Path+"="+literal.Replace(v.Text), into)
	}
	for _, quote := range []string{"'", `"`} {
		if strings.HasPrefix(v.Text, quote) && strings.HasSuffix(v.Text, quote) {
			return strvals.ParseIntoString(v.Path+"="+strings.Trim(v.Text, `'"`), into)
		}
	}
	return strvals.ParseInto(v.Path+"="+v.Text, into)
}

// mergeMaps is chartutil.MergeMaps. Like that, it shares with b what only b has.
func mergeMaps(a, b map[string]any) map[string]any {
	both := maps.Clone(a)
	for key, value := range b {
		above, isMap := value.(map[string]any)
		below, wasMap := both[key].(map[string]any)
		if isMap && wasMap {
			value = mergeMaps(below, above)
		}
		both[key] = value
	}
	return both
}
