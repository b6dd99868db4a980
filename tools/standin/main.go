// Stands in, in test clusters, for images that cannot be had there. It is none of those programs: it
// answers their probes, so that pods, volumes, policies and secrets around them can be tried.
//
//	standin              serve: HTTP 200 for every path, on every port that the charts' containers have, and
//	                     on that of cert-manager's pod which answers an issuer
//	standin sleep        wait to be asked
//	standin dial H:P …   try to connect to each, print "H:P open|closed|unknown: reason"
//	standin model        serve a model provider as OpenAI does, which says what it was told
//	standin metadata     serve tokens as the metadata server of GKE does (Workload Identity)
//	standin git DIR      serve an empty repository, DIR/repository, over HTTP (smart protocol), pushes too
//	pg_isready …         0 if port 5432 answers, as the probes of PostgreSQL ask
package main

import (
	"errors"
	"fmt"
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

var ports = []string{"3000", "5432", "8000", "8080", "8089", "11235", "50051"}

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
	case "model":
		go func() { fail(http.ListenAndServe(":8080", newProvider())) }()
		wait()
	case "metadata":
		go func() { fail(http.ListenAndServe(":8080", metadata())) }()
		wait()
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
