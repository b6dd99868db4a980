package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
)

// layer makes one out of lines: "PATH = CONTENT", "PATH -> SYMLINK", "PATH => HARD LINK", "PATH/".
func layer(t *testing.T, lines ...string) []byte {
	t.Helper()
	var made bytes.Buffer
	archive := tar.NewWriter(&made)
	for _, line := range lines {
		header := &tar.Header{Name: line, Typeflag: tar.TypeDir, Mode: 0o755}
		content := ""
		for separator, kind := range map[string]byte{" = ": tar.TypeReg, " -> ": tar.TypeSymlink, " => ": tar.TypeLink} {
			name, rest, ok := strings.Cut(line, separator)
			if !ok {
				continue
			}
			header.Name, header.Typeflag = name, kind
			if kind == tar.TypeReg {
				content, header.Size = rest, int64(len(rest))
			} else {
				header.Linkname = rest
			}
		}
		if err := archive.WriteHeader(header); err != nil {
			t.Fatal(err)
		}
		if _, err := archive.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := archive.Close(); err != nil {
		t.Fatal(err)
	}
	return made.Bytes()
}

func takes(t *testing.T, wanted string, layers ...[]byte) (string, error) {
	t.Helper()
	made := make([]v1.Layer, len(layers))
	for number, content := range layers {
		made[number] = static.NewLayer(content, types.DockerLayer)
	}
	folder := t.TempDir()
	output := filepath.Join(folder, "out")
	if err := take(context.Background(), made, wanted, output); err != nil {
		return "", err
	}
	content, err := os.ReadFile(output)
	if err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(folder); len(left) != 1 {
		t.Errorf("more than the file is left: %v", left)
	}
	return string(content), nil
}

func TestTheFileIsThatOfARunningContainer(t *testing.T) {
	for name, layers := range map[string][][]string{
		"one layer":              {{"bin/", "bin/it = right"}},
		"dot paths":              {{"./bin/", "./bin/it = right"}},
		"absolute paths":         {{"/bin/it = right"}},
		"twice in a layer":       {{"bin/it = wrong", "bin/it = right"}},
		"a link, then a file":    {{"bin/it -> other", "bin/it = right", "bin/other = wrong"}},
		"others after it":        {{"bin/it = right", "bin/zz = wrong"}},
		"the upper one wins":     {{"bin/it = wrong"}, {"bin/it = right"}},
		"removed, made anew":     {{"bin/it = wrong"}, {"bin/.wh.it = "}, {"bin/it = right"}},
		"whiteout beside it":     {{"bin/it = wrong"}, {"bin/.wh.it = ", "bin/it = right"}},
		"opaque and made anew":   {{"bin/it = wrong"}, {"bin/.wh..wh..opq = ", "bin/it = right"}},
		"another is removed":     {{"bin/it = right"}, {"bin/.wh.item = ", ".wh.bi = "}},
		"symbolic link":          {{"opt/real = right"}, {"bin/it -> ../opt/real"}},
		"absolute symbolic link": {{"bin/it -> /opt/real", "opt/real = right"}},
		"link above the root":    {{"bin/it -> ../../../opt/real", "opt/real = right"}},
		"hard link":              {{"opt/real = right", "bin/it => opt/real"}},
		"merged usr":             {{"bin -> usr/bin"}, {"usr/bin/it = right"}},
		"link to a link":         {{"bin/it -> one", "bin/one -> two", "bin/two = right"}},
		"a directory for a link": {{"bin -> usr/bin", "usr/bin/it = wrong"}, {"bin/", "bin/it = right"}},
		"a link for a directory": {{"bin/it = wrong"}, {"bin -> usr/bin", "usr/bin/it = right"}},
	} {
		t.Run(name, func(t *testing.T) {
			var made [][]byte
			for _, lines := range layers {
				made = append(made, layer(t, lines...))
			}
			if got, err := takes(t, "/bin/it", made...); err != nil || got != "right" {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

func TestWhatAContainerWouldNotHave(t *testing.T) {
	for name, layers := range map[string][][]string{
		"never there":         {{"bin/other = x"}},
		"removed":             {{"bin/it = x"}, {"bin/.wh.it = "}},
		"its folder removed":  {{"bin/it = x"}, {".wh.bin = "}},
		"hidden":              {{"bin/it = x"}, {"bin/.wh..wh..opq = "}},
		"all hidden":          {{"bin/it = x"}, {".wh..wh..opq = "}},
		"a directory":         {{"bin/it/"}},
		"a file for a folder": {{"bin/it = x"}, {"bin = y"}},
		"a link to nothing":   {{"bin/it -> other"}},
		"a link out":          {{"bin/it -> ../../../etc/passwd"}},
		"links in a circle":   {{"bin/it -> other", "bin/other -> it"}},
	} {
		t.Run(name, func(t *testing.T) {
			var made [][]byte
			for _, lines := range layers {
				made = append(made, layer(t, lines...))
			}
			if got, err := takes(t, "/bin/it", made...); err == nil {
				t.Errorf("got %q", got)
			}
		})
	}
}

func TestPathsThatLeadOutAreRefused(t *testing.T) {
	for _, name := range []string{"../it", "bin/../../it", "/../it", ".."} {
		_, err := takes(t, "/bin/it", layer(t, "bin/it = x", name+" = y"))
		if err == nil || !strings.Contains(err.Error(), "leads out of the image") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCompressedLayers(t *testing.T) {
	plain := layer(t, "bin/it = right")
	var zipped, standard bytes.Buffer
	writer := gzip.NewWriter(&zipped)
	writer.Write(plain)
	writer.Close()
	encoder, _ := zstd.NewWriter(&standard)
	encoder.Write(plain)
	encoder.Close()
	for name, content := range map[string][]byte{"gzip": zipped.Bytes(), "zstd": standard.Bytes()} {
		if got, err := takes(t, "bin/it", content); err != nil || got != "right" {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
	if _, err := takes(t, "bin/it", zipped.Bytes()[:zipped.Len()-9]); err == nil {
		t.Error("half an archive was taken")
	}
}

// endless unpacks to zeros without an end.
type endless struct{}

func (endless) Read(into []byte) (int, error) {
	clear(into)
	return len(into), nil
}

func TestUnpackingHasABound(t *testing.T) {
	read := int64(largestImage - 1<<20)
	_, err := io.Copy(io.Discard, &bounded{endless{}, &read})
	if err == nil || !strings.Contains(err.Error(), "unpacks to more than") {
		t.Error(err)
	}
}

func TestImagesHaveABound(t *testing.T) {
	if _, err := size([]v1.Layer{large{}, large{}}); err == nil {
		t.Error("it was taken")
	}
	if _, err := size([]v1.Layer{large{}}); err != nil {
		t.Error(err)
	}
}

type large struct{ v1.Layer }

func (large) Size() (int64, error) { return largestImage/2 + 1, nil }
