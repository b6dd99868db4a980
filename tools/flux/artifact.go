package main

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	generator "github.com/fluxcd/pkg/kustomize"
	securefs "github.com/fluxcd/pkg/kustomize/filesys"
	"github.com/fluxcd/pkg/sourceignore"
	"github.com/fluxcd/pkg/sourceignore/gitignore"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/kustomize/api/konfig"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// artifact is a repository as Flux fetches it: without what it ignores, and with no way out of it.
// It notes which files are read.
type artifact struct {
	filesys.FileSystem
	root    string
	matcher gitignore.Matcher
	read    map[string]bool
	// generated holds files by name that are on no disk.
	generated map[string][]byte
	// customSchema tells that a kustomization may have brought schemas of its own.
	customSchema bool
}

func newArtifact(root string, ignore *string) (*artifact, error) {
	root, err := filepath.EvalSymlinks(root)
	if err != nil {
		return nil, err
	}
	disk, err := securefs.MakeFsOnDiskSecure(root)
	if err != nil {
		return nil, err
	}
	domain := strings.Split(root, string(filepath.Separator))
	patterns, err := ignorePatterns(root, domain)
	if err != nil {
		return nil, err
	}
	if ignore != nil {
		patterns = append(patterns, sourceignore.ReadPatterns(strings.NewReader(*ignore), domain)...)
	}
	return &artifact{
		FileSystem: disk,
		root:       root,
		matcher:    matcher(patterns, domain),
		read:       map[string]bool{},
		generated:  map[string][]byte{},
	}, nil
}

// matcher is that of SourceIgnoreFilter of fluxcd/pkg/artifact: whoever says what to leave out says
// all of it, but for what is Git's own.
func matcher(patterns []gitignore.Pattern, domain []string) gitignore.Matcher {
	if len(patterns) == 0 {
		return sourceignore.NewDefaultMatcher(nil, domain)
	}
	return sourceignore.NewMatcher(append(sourceignore.VCSPatterns(domain), patterns...))
}

// notFlux are folders that hold no part of a Flux tree, and may hold a great many files.
var notFlux = []string{".git", ".venv", "node_modules", "build"}

// ignorePatterns is sourceignore.LoadIgnorePatterns, which would also walk through .venv, and which a
// folder ends that another program removes meanwhile (or that is closed to us): Git has none of these.
func ignorePatterns(folder string, domain []string) ([]gitignore.Pattern, error) {
	domain = slices.Clone(domain)
	entries, _ := os.ReadDir(folder)
	var found []gitignore.Pattern
	if slices.ContainsFunc(entries, func(each fs.DirEntry) bool { return each.Name() == sourceignore.IgnoreFile }) {
		own, err := sourceignore.ReadIgnoreFile(filepath.Join(folder, sourceignore.IgnoreFile), domain)
		if err != nil {
			return nil, err
		}
		found = own
	}
	for _, entry := range entries {
		if !entry.IsDir() || slices.Contains(notFlux, entry.Name()) {
			continue
		}
		below, err := ignorePatterns(filepath.Join(folder, entry.Name()), append(domain, entry.Name()))
		if err != nil {
			return nil, err
		}
		found = append(found, below...)
	}
	return found, nil
}

// generate makes the kustomization of a folder, or changes it, as the Flux object says. It is kept in
// memory, and not in kustomize's own file system there, which refuses many names of folders.
func (a *artifact) generate(object unstructured.Unstructured, folder string) error {
	made := generator.NewGenerator(a.root, object)
	for _, name := range konfig.RecognizedKustomizationFileNames() {
		if path := filepath.Join(folder, name); a.FileSystem.Exists(path) && a.hides(path) {
			return withoutRoot(gone(path), a.root)
		}
	}
	if !a.hasKustomization(folder) {
		// The generator scans the folder itself: it is told what is not there.
		made = generator.NewGeneratorWithIgnore(a.root, a.hiddenIn(folder), object)
	}
	text, name, action, err := made.GenerateManifest(folder)
	if err != nil {
		return withoutRoot(err, a.root)
	}
	if action == generator.UnchangedAction {
		a.note(name)
		a.customSchema = bytes.Contains(text, []byte("openapi"))
	}
	a.generated[name] = text
	return nil
}

func (a *artifact) hasKustomization(folder string) bool {
	return slices.ContainsFunc(konfig.RecognizedKustomizationFileNames(), func(name string) bool {
		return a.Exists(filepath.Join(folder, name))
	})
}

// hiddenIn gives the ignored files of a folder as patterns of .gitignore.
func (a *artifact) hiddenIn(folder string) string {
	var lines []string
	_ = filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && a.hides(path) {
			lines = append(lines, strings.TrimPrefix(path, folder))
		}
		return nil
	})
	return strings.Join(lines, "\n") + "\n#"
}

// hides tells whether Flux leaves a file or folder out, or one of the folders that it lies in: what
// is ignored, and every symbolic link (fluxcd/pkg/artifact packs files and folders only).
func (a *artifact) hides(path string) bool {
	absolute, err := filepath.Abs(path)
	if err != nil || !strings.HasPrefix(absolute, a.root+"/") {
		return false
	}
	parts := strings.Split(absolute, string(filepath.Separator))
	for length := strings.Count(a.root, "/") + 2; length <= len(parts); length++ {
		folder := length < len(parts) || a.FileSystem.IsDir(absolute)
		if a.matcher.Match(parts[:length], folder) || isLink(strings.Join(parts[:length], "/")) {
			return true
		}
	}
	return false
}

func isLink(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.Mode()&os.ModeSymlink != 0
}

func (a *artifact) note(path string) {
	if absolute, err := filepath.Abs(path); err == nil {
		if name, err := filepath.Rel(a.root, absolute); err == nil {
			a.read[name] = true
		}
	}
}

func (a *artifact) names() []string {
	var found []string
	for name := range a.read {
		if path := filepath.Join(a.root, name); a.FileSystem.Exists(path) && !a.FileSystem.IsDir(path) {
			found = append(found, name)
		}
	}
	slices.Sort(found)
	return found
}

// gone is what reading a hidden file gives.
func gone(path string) error {
	return &os.PathError{Op: "open", Path: path + " (Flux does not fetch it: .sourceignore, or a link)", Err: os.ErrNotExist}
}

func (a *artifact) Exists(path string) bool {
	return a.generated[path] != nil || !a.hides(path) && a.FileSystem.Exists(path)
}

func (a *artifact) IsDir(path string) bool { return !a.hides(path) && a.FileSystem.IsDir(path) }

// CleanedAbs is where kustomize follows links.
func (a *artifact) CleanedAbs(path string) (filesys.ConfirmedDir, string, error) {
	if a.hides(path) {
		return "", "", gone(path)
	}
	return a.FileSystem.CleanedAbs(path)
}

func (a *artifact) ReadFile(path string) ([]byte, error) {
	if text := a.generated[path]; text != nil {
		return text, nil
	}
	if a.hides(path) {
		return nil, gone(path)
	}
	a.note(path)
	text, err := a.FileSystem.ReadFile(path)
	if slices.Contains(konfig.RecognizedKustomizationFileNames(), filepath.Base(path)) {
		a.customSchema = a.customSchema || bytes.Contains(text, []byte("openapi"))
	}
	return text, err
}

func (a *artifact) Open(path string) (filesys.File, error) {
	if a.hides(path) {
		return nil, gone(path)
	}
	a.note(path)
	return a.FileSystem.Open(path)
}

func (a *artifact) Walk(path string, walk filepath.WalkFunc) error {
	return a.FileSystem.Walk(path, func(path string, info os.FileInfo, err error) error {
		if a.hides(path) {
			return nil
		}
		return walk(path, info, err)
	})
}
