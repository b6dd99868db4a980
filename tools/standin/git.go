package main

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"path/filepath"
	"strings"

	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/plumbing/format/pktline"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/revlist"
	"github.com/go-git/go-git/v5/plumbing/transport"
	"github.com/go-git/go-git/v5/plumbing/transport/server"
)

// repositories serves the bare repositories in a directory; see gitprotocol-http(5).
type repositories struct{ directory string }

func newRepositories(directory string) (repositories, error) {
	_, err := git.PlainInitWithOptions(filepath.Join(directory, "repository"), &git.PlainInitOptions{
		InitOptions: git.InitOptions{DefaultBranch: "refs/heads/main"},
		Bare:        true,
	})
	if errors.Is(err, git.ErrRepositoryAlreadyExists) {
		err = nil
	}
	return repositories{directory}, err
}

func (s repositories) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name, verb := "", ""
	for _, known := range []string{"/info/refs", "/git-upload-pack", "/git-receive-pack"} {
		if rest, found := strings.CutSuffix(r.URL.Path, known); found {
			name, verb = rest, strings.TrimPrefix(known, "/")
		}
	}
	var err error
	switch {
	case verb == "" || strings.Contains(name, ".."):
		http.NotFound(w, r)
		return
	case verb == "info/refs":
		err = s.advertise(w, r.URL.Query().Get("service"), name)
	default:
		err = s.exchange(w, r, verb, name)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

func (s repositories) session(service, name string) (transport.Session, error) {
	endpoint, err := transport.NewEndpoint(name)
	if err != nil {
		return nil, err
	}
	from := server.NewServer(server.NewFilesystemLoader(osfs.New(s.directory)))
	if service == "git-receive-pack" {
		return from.NewReceivePackSession(endpoint, nil)
	}
	return from.NewUploadPackSession(endpoint, nil)
}

func (s repositories) advertise(w http.ResponseWriter, service, name string) error {
	session, err := s.session(service, name)
	if err != nil {
		return err
	}
	refs, err := session.AdvertisedReferences()
	if err != nil {
		return err
	}
	if service == "git-upload-pack" {
		if err := refs.Capabilities.Add(capability.Shallow); err != nil {
			return err
		}
	}
	refs.Prefix = [][]byte{[]byte("# service=" + service), pktline.Flush}
	w.Header().Set("Content-Type", "application/x-"+service+"-advertisement")
	w.Header().Set("Cache-Control", "no-cache")
	return refs.Encode(w)
}

func (s repositories) exchange(w http.ResponseWriter, r *http.Request, service, name string) error {
	session, err := s.session(service, name)
	if err != nil {
		return err
	}
	var body io.Reader = r.Body
	if r.Header.Get("Content-Encoding") == "gzip" {
		if body, err = gzip.NewReader(r.Body); err != nil {
			return err
		}
	}
	w.Header().Set("Content-Type", "application/x-"+service+"-result")
	w.Header().Set("Cache-Control", "no-cache")
	if service == "git-receive-pack" {
		request := packp.NewReferenceUpdateRequest()
		if err := request.Decode(body); err != nil {
			return err
		}
		status, err := session.(transport.ReceivePackSession).ReceivePack(r.Context(), request)
		if status == nil {
			return err
		}
		return status.Encode(w)
	}
	request := packp.NewUploadPackRequest()
	if err := request.Decode(body); err != nil {
		return err
	}
	if !request.Depth.IsZero() {
		return s.newest(w, request, name)
	}
	response, err := session.(transport.UploadPackSession).UploadPack(r.Context(), request)
	if err != nil {
		return err
	}
	defer response.Close()
	return response.Encode(w)
}

// newest answers a request for less than the whole history, which the library does not: whatever the
// depth that is asked for, with the wanted commits alone.
func (s repositories) newest(w io.Writer, request *packp.UploadPackRequest, name string) error {
	endpoint, err := transport.NewEndpoint(name)
	if err != nil {
		return err
	}
	from, err := server.NewFilesystemLoader(osfs.New(s.directory)).Load(endpoint)
	if err != nil {
		return err
	}
	var objects []plumbing.Hash
	var update packp.ShallowUpdate
	for _, want := range request.Wants {
		commit, err := object.GetCommit(from, want)
		if err != nil {
			return err
		}
		tree, err := revlist.Objects(from, []plumbing.Hash{commit.TreeHash}, nil)
		if err != nil {
			return err
		}
		objects = append(append(objects, want), tree...)
		if commit.NumParents() > 0 {
			update.Shallows = append(update.Shallows, want)
		}
	}
	var pack bytes.Buffer
	if _, err := packfile.NewEncoder(&pack, from, false).Encode(objects, 10); err != nil {
		return err
	}
	response := packp.NewUploadPackResponseWithPackfile(request, io.NopCloser(&pack))
	response.ShallowUpdate = update
	return response.Encode(w)
}
