package main

import (
	"crypto/sha256"
	"fmt"
	"path"
	"runtime/debug"
	"slices"
	"strings"

	"helm.sh/helm/v4/pkg/chart/common"
	commonutil "helm.sh/helm/v4/pkg/chart/common/util"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	chartutil "helm.sh/helm/v4/pkg/chart/v2/util"
	"helm.sh/helm/v4/pkg/engine"
)

// renderer holds what outlives a request. It is safe for concurrent use.
type renderer struct {
	charts    chartCache
	values    valuesCache
	schemas   schemaCache
	probes    probeCache
	documents documentCache
}

func newRenderer() *renderer {
	return &renderer{
		charts:    chartCache{kept: map[string]*chart.Chart{}},
		probes:    probeCache{kept: map[string]*instrumentedText{}},
		documents: documentCache{kept: map[[sha256.Size]byte]*document{}},
	}
}

func (r *renderer) do(asked *request) (*response, *failure) {
	if asked.Op == "version" {
		return &response{Helm: helmVersion}, nil
	}
	if asked.Op == "secret" {
		made, failed := secret(asked.Templates, asked.Data)
		return &response{Data: made}, failed
	}
	loaded, failed := r.charts.get(asked)
	if failed != nil {
		return nil, failed
	}
	switch asked.Op {
	case "render":
		return r.render(asked, loaded)
	case "branches":
		probed, failed := r.probes.instrument(loaded)
		if failed != nil {
			return nil, failed
		}
		return &response{Branches: probed.branches}, nil
	case "values_used":
		used, failed := valuesUsed(loaded)
		return &response{Used: used}, failed
	}
	return nil, usage("unknown op %q", asked.Op)
}

func (r *renderer) render(asked *request, loaded *chart.Chart) (*response, *failure) {
	given, failed := r.values.merge(asked.Values, asked.Names)
	if failed != nil {
		return nil, failed
	}
	rendering := clone(loaded)
	top, failed := r.topValues(asked, rendering, given)
	if failed != nil {
		return nil, failed
	}
	reply := &response{}
	files, failed := r.execute(asked, rendering, top, reply)
	if failed != nil {
		return reply, failed
	}
	reply.Notes = takeNotes(rendering, files)
	if asked.Text {
		reply.Texts = files
	}
	reply.Manifests, failed = r.documents.manifests(rendering, files, asked.IncludeCRDs)
	return reply, failed
}

// topValues makes what templates see as their root, in the steps of `helm template`.
func (r *renderer) topValues(
	asked *request, of *chart.Chart, given map[string]any,
) (common.Values, *failure) {
	if err := chartutil.ValidateReleaseName(asked.Release.Name); err != nil {
		return nil, usage("release name %q: %v", asked.Release.Name, err)
	}
	capabilities, failed := capabilities(asked)
	if failed != nil {
		return nil, failed
	}
	wanted := of.Metadata.KubeVersion
	if wanted != "" && !chartutil.IsCompatibleRange(wanted, capabilities.KubeVersion.String()) {
		return nil, loadFailure(fmt.Errorf(
			"chart requires kubeVersion: %s which is incompatible with Kubernetes %s",
			wanted, capabilities.KubeVersion.String()))
	}
	if err := chartutil.ProcessDependencies(of, given); err != nil {
		return nil, loadFailure(err)
	}
	options := common.ReleaseOptions{
		Name:      asked.Release.Name,
		Namespace: asked.Release.Namespace,
		Revision:  max(asked.Release.Revision, 1),
		IsInstall: !asked.Release.IsUpgrade,
		IsUpgrade: asked.Release.IsUpgrade,
	}
	const schemaCheckedBelow = true
	top, err := commonutil.ToRenderValuesWithSchemaValidation(
		of, given, options, capabilities, schemaCheckedBelow)
	if err != nil {
		return nil, loadFailure(err)
	}
	return top, r.schemas.check(of, top["Values"].(common.Values))
}

func capabilities(asked *request) (*common.Capabilities, *failure) {
	version, err := common.ParseKubeVersion(asked.KubeVersion)
	if err != nil {
		return nil, usage("invalid kube version %q: %v", asked.KubeVersion, err)
	}
	own := common.DefaultCapabilities.Copy()
	own.KubeVersion = *version
	own.APIVersions = append(slices.Clone(own.APIVersions), asked.APIVersions...)
	own.HelmVersion.Version = helmVersion
	return own, nil
}

// helmVersion is the version of the packages that this program is built from. Helm's own releases
// are told theirs by the linker.
var helmVersion = func() string {
	if build, known := debug.ReadBuildInfo(); known {
		for _, module := range build.Deps {
			if module.Path == "helm.sh/helm/v4" {
				return module.Version
			}
		}
	}
	return common.DefaultCapabilities.HelmVersion.Version
}()

// execute runs the templates. With coverage it runs instrumented ones; where those fail, the plain
// ones run as well, because only their errors have the line numbers that the author knows.
func (r *renderer) execute(
	asked *request, of *chart.Chart, top common.Values, reply *response,
) (map[string]string, *failure) {
	if asked.Coverage {
		probed, failed := r.probes.instrument(of)
		if failed != nil {
			return nil, failed
		}
		recorder := newRecorder()
		files, err := engine.RenderWithClientProvider(probed.chart, top, recorder)
		reply.Hits = recorder.hits()
		if err == nil {
			return files, nil
		}
	}
	files, err := engine.Render(of, top)
	if err != nil {
		return nil, templateFailure(err)
	}
	return files, nil
}

const notesFile = "NOTES.txt"

// takeNotes removes every NOTES.txt from the files and returns the chart's own.
func takeNotes(of *chart.Chart, files map[string]string) string {
	notes := files[path.Join(of.Name(), "templates", notesFile)]
	for name := range files {
		if strings.HasSuffix(name, notesFile) {
			delete(files, name)
		}
	}
	return notes
}
