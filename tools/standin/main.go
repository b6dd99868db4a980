// Stands in, in test clusters, for images that cannot be had there. It is none of those programs: it
// answers their probes, so that pods, volumes, policies and secrets around them can be tried.
//
//	standin              serve: HTTP 200 for every path, on every port that the charts' containers have
//	standin sleep        wait to be asked
//	standin dial H:P …   try to connect to each, print "H:P open|closed|unknown: reason"
//	standin git DIR      serve an empty repository, DIR/repository, over HTTP (smart protocol), pushes too
//	pg_isready …         0 if port 5432 answers, as the probes of PostgreSQL ask
package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

var ports = []string{"3000", "5432", "8000", "8080", "11235", "50051"}

func main() {
	if filepath.Base(os.Args[0]) == "pg_isready" {
		os.Exit(dial([]string{"127.0.0.1:5432"}))
	}
	verb, rest := "serve", []string{}
	if len(os.Args) > 1 {
		verb, rest = os.Args[1], os.Args[2:]
	}
	switch verb {
	case "serve":
		serve()
	case "sleep":
		wait()
	case "dial":
		os.Exit(dial(rest))
	case "git":
		if len(rest) != 1 {
			fail("git needs one directory")
		}
		served, err := newRepositories(rest[0])
		if err != nil {
			fail(err)
		}
		go func() { fail(http.ListenAndServe(":8080", served)) }()
		wait()
	default:
		fail("unknown: " + verb)
	}
}

func fail(reason any) {
	fmt.Fprintln(os.Stderr, "standin:", reason)
	os.Exit(2)
}

// As the first process of a container it gets no default handler.
func wait() {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	<-stop
}

func serve() {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "stackproof stand-in")
	})
	// Which value the pod has, without telling it.
	mux.HandleFunc("/env/", func(w http.ResponseWriter, r *http.Request) {
		value, known := os.LookupEnv(strings.TrimPrefix(r.URL.Path, "/env/"))
		if !known {
			http.NotFound(w, r)
			return
		}
		fmt.Fprintf(w, "%x\n", sha256.Sum256([]byte(value)))
	})
	if folder := os.Getenv("PERSISTENCE_DATA_PATH"); folder != "" {
		if err := store(mux, folder, os.Getenv("CLUSTER_HOSTNAME")); err != nil {
			fail(err)
		}
	}
	for _, port := range ports {
		go func() { fail(http.ListenAndServe(":"+port, mux)) }()
	}
	// What the pod prints becomes its log.
	if text := os.Getenv("SAY"); text != "" {
		fmt.Println(text)
	}
	fmt.Println("stackproof stand-in: serving on", strings.Join(ports, " "))
	wait()
}

// Stands in for Weaviate as far as an upgrade concerns it: what it is given (PUT /v1/objects/NAME) is a file
// on its volume, and it belongs to the node's name. Weaviate does not find what another name has
// written; this one does not even start, so that nobody overlooks it.
func store(mux *http.ServeMux, folder, node string) error {
	mark := filepath.Join(folder, "node")
	before, err := os.ReadFile(mark)
	switch {
	case errors.Is(err, os.ErrNotExist):
		err = os.WriteFile(mark, []byte(node), 0o644)
	case err == nil && string(before) != node:
		err = fmt.Errorf("the volume's data belongs to node %s, this one is called %s", before, node)
	}
	if err != nil {
		return err
	}
	objects := filepath.Join(folder, "objects")
	if err := os.MkdirAll(objects, 0o755); err != nil {
		return err
	}
	files := http.StripPrefix("/v1/objects/", http.FileServer(http.Dir(objects)))
	mux.HandleFunc("/v1/objects/", func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPut {
			files.ServeHTTP(w, r)
			return
		}
		file, err := os.Create(filepath.Join(objects, filepath.Base(r.URL.Path)))
		if err == nil {
			_, err = io.Copy(file, r.Body)
			err = errors.Join(err, file.Close())
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	return nil
}

// Tries each address for two seconds. Refused or silent is "closed"; what says nothing about the
// address, such as a name that is not known, is "unknown".
func dial(addresses []string) int {
	said := make([]string, len(addresses))
	var all sync.WaitGroup
	for i, address := range addresses {
		all.Add(1)
		go func() {
			defer all.Done()
			connection, err := net.DialTimeout("tcp", address, 2*time.Second)
			var unknown *net.DNSError
			switch {
			case err == nil:
				connection.Close()
				said[i] = "open"
			case errors.As(err, &unknown) || errors.Is(err, syscall.ENETUNREACH):
				said[i] = "unknown: " + err.Error()
			default:
				said[i] = "closed: " + err.Error()
			}
		}()
	}
	all.Wait()
	code := 0
	for i, address := range addresses {
		fmt.Println(address, said[i])
		if said[i] != "open" {
			code = 1
		}
	}
	return code
}
