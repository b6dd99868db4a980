package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/klauspost/compress/zstd"
)

const (
	// What is more is no image that is deployed here, but one that fills the disk.
	largestImage = 8 << 30
	largestFile  = 2 << 30
	// As many symbolic links as Linux follows.
	links = 40

	// In a layer, a file of this name hides one of the layers below, or all of its directory.
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
)

// entry is what an image has at a path.
type entry struct {
	layer  int
	kind   byte
	target string
	inside string // its name in the layer's archive
}

// root is the file system of an image, read from its top layer down.
type root struct {
	archives []string
	entries  map[string]entry
	// Path to the layer that hides it from the layers below.
	hidden map[string]int
	hides  map[string]int
	read   int64
}

// take writes the file that an image has at a path. No layer is fetched that is not looked into:
// programs mostly lie in the uppermost ones. A layer is looked into once its digest is right.
func take(ctx context.Context, layers []v1.Layer, wanted, output string) error {
	scratch, err := os.MkdirTemp(filepath.Dir(output), "layers-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	wanted = strings.TrimPrefix(path.Clean("/"+wanted), "/")
	files := &root{
		archives: make([]string, len(layers)),
		entries:  map[string]entry{},
		hidden:   map[string]int{},
		hides:    map[string]int{},
	}
	of, err := size(layers)
	if err != nil {
		return err
	}
	seen := &progress{of: of}
	for number := len(layers) - 1; number >= 0; number-- {
		archive := filepath.Join(scratch, fmt.Sprint(number))
		if err := download(ctx, layers[number], archive, seen); err != nil {
			return err
		}
		files.archives[number] = archive
		if err := files.look(number); err != nil {
			return err
		}
		if found, ok := files.entries[wanted]; ok && found.kind == tar.TypeReg {
			return files.write(found, output)
		}
	}
	found, err := files.resolve(wanted)
	if err != nil {
		return err
	}
	return files.write(found, output)
}

func size(layers []v1.Layer) (int64, error) {
	var sum int64
	for _, layer := range layers {
		size, err := layer.Size()
		if err != nil {
			return 0, err
		}
		if sum += size; size < 0 || sum > largestImage {
			return 0, fmt.Errorf("the image is larger than %d bytes", int64(largestImage))
		}
	}
	return sum, nil
}

// download fetches a layer; where the connection breaks, again.
func download(ctx context.Context, layer v1.Layer, to string, seen *progress) error {
	for try := 1; ; try++ {
		err := once(layer, to, seen)
		if err == nil || try == tries || !broken(err) {
			return err
		}
		if err := sleep(ctx, time.Duration(try)*time.Second); err != nil {
			return err
		}
	}
}

func broken(err error) bool {
	var network net.Error
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) ||
		(errors.As(err, &network) && network.Timeout())
}

func once(layer v1.Layer, to string, seen *progress) error {
	from, err := layer.Compressed() // which compares size and digest at its end
	if err != nil {
		return err
	}
	defer from.Close()
	file, err := os.Create(to)
	if err != nil {
		return err
	}
	defer file.Close()
	before := seen.got
	if _, err := io.Copy(io.MultiWriter(file, seen), from); err != nil {
		seen.got = before
		return err
	}
	return file.Close()
}

// open returns the archive of a layer, unpacked as it is read.
func (r *root) open(layer int) (io.ReadCloser, error) {
	file, err := os.Open(r.archives[layer])
	if err != nil {
		return nil, err
	}
	buffered := bufio.NewReader(file)
	magic, _ := buffered.Peek(4)
	var content io.Reader = buffered
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		content, err = gzip.NewReader(buffered)
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		content, err = zstd.NewReader(buffered, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(128<<20))
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{&bounded{content, &r.read}, file}, nil
}

// bounded fails where an archive unpacks to more than any image: its few bytes may become many.
type bounded struct {
	inner io.Reader
	read  *int64
}

func (b *bounded) Read(into []byte) (int, error) {
	n, err := b.inner.Read(into)
	if *b.read += int64(n); *b.read > largestImage {
		return n, fmt.Errorf("the image unpacks to more than %d bytes", int64(largestImage))
	}
	return n, err
}

// look notes what a layer has, unless one above has it or hides it.
func (r *root) look(layer int) error {
	content, err := r.open(layer)
	if err != nil {
		return err
	}
	defer content.Close()
	archive := tar.NewReader(content)
	for {
		header, err := archive.Next()
		if err == io.EOF {
			// What comes after the archive's end mark: the checksum of what was unpacked.
			_, err := io.Copy(io.Discard, content)
			return err
		}
		if err != nil {
			return err
		}
		inside := path.Clean(strings.TrimPrefix(header.Name, "/"))
		if inside == ".." || strings.HasPrefix(inside, "../") {
			return fmt.Errorf("a layer has the path %q, which leads out of the image", header.Name)
		}
		r.note(layer, inside, header)
	}
}

func (r *root) note(layer int, inside string, header *tar.Header) {
	folder, base := path.Split(inside)
	folder = path.Clean(folder)
	switch hidden, isWhiteout := strings.CutPrefix(base, whiteout); {
	case base == opaque:
		r.hides[folder] = max(r.hides[folder], layer+1)
	case isWhiteout:
		both := path.Join(folder, hidden)
		r.hidden[both] = max(r.hidden[both], layer+1)
	case r.covered(layer, inside):
	default:
		at := entry{layer, header.Typeflag, header.Linkname, header.Name}
		// In one layer the last one counts, as with tar.
		if above, ok := r.entries[inside]; !ok || above.layer == layer {
			r.entries[inside] = at
		}
	}
}

// covered tells whether a layer above hides the path: itself or a directory that it is in, or by a
// file in the place of such a directory.
func (r *root) covered(layer int, inside string) bool {
	if r.hidden[inside]-1 > layer {
		return true
	}
	for folder := path.Dir(inside); ; folder = path.Dir(folder) {
		if r.hidden[folder]-1 > layer || r.hides[folder]-1 > layer {
			return true
		}
		if above, ok := r.entries[folder]; ok && above.layer > layer && above.kind != tar.TypeDir {
			return true
		}
		if folder == "." {
			return false
		}
	}
}

// resolve follows links within the image, in which nothing lies above its root.
func (r *root) resolve(wanted string) (entry, error) {
	left := strings.Split(wanted, "/")
	at := "."
	for followed := 0; len(left) > 0; {
		next := path.Join(at, left[0])
		if left[0] == ".." {
			next = path.Dir(at)
		}
		left = left[1:]
		found, ok := r.entries[next]
		switch {
		case ok && (found.kind == tar.TypeSymlink || found.kind == tar.TypeLink):
			if followed++; followed > links {
				return entry{}, fmt.Errorf("/%s is behind too many links", wanted)
			}
			// A hard link names a path from the root.
			if found.kind == tar.TypeLink || path.IsAbs(found.target) {
				at = "."
			}
			left = append(strings.Split(strings.Trim(found.target, "/"), "/"), left...)
		case len(left) > 0:
			at = next
		case ok && found.kind == tar.TypeReg:
			return found, nil
		}
	}
	return entry{}, fmt.Errorf("the image has no file /%s", wanted)
}

func (r *root) write(found entry, output string) error {
	content, err := r.open(found.layer)
	if err != nil {
		return err
	}
	defer content.Close()
	archive := tar.NewReader(content)
	file, err := os.OpenFile(output, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	defer file.Close()
	for {
		header, err := archive.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if header.Name != found.inside || header.Typeflag != tar.TypeReg {
			continue
		}
		if header.Size > largestFile {
			return fmt.Errorf("%s is larger than %d bytes", header.Name, int64(largestFile))
		}
		if err := file.Truncate(0); err != nil {
			return err
		}
		if _, err := file.Seek(0, io.SeekStart); err != nil {
			return err
		}
		if _, err := io.Copy(file, archive); err != nil {
			return err
		}
	}
	return file.Close()
}

// progress says how much of an image is there, several times a second.
type progress struct {
	got, of int64
	said    time.Time
}

func (p *progress) Write(bytes []byte) (int, error) {
	p.got += int64(len(bytes))
	if now := time.Now(); now.Sub(p.said) > 200*time.Millisecond {
		p.said = now
		say(map[string]int64{"got": p.got, "of": p.of})
	}
	return len(bytes), nil
}
