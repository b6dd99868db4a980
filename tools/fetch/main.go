// Fetch asks a registry for an image: for one file of it, or for its digest. No Docker is needed.
//
//	fetch file [-platform OS/ARCH] IMAGE PATH OUTPUT
//	fetch digest IMAGE
//
// Each line of the standard output is a JSON object: how far it is, and at the end what came of it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// result is the last line. Of a failure it has the kind, so that the caller knows whether to ask
// the registry again: it is "unreachable" or "limited" for every image, the others are of this one.
type result struct {
	Digest string `json:"digest,omitempty"`
	Kind   string `json:"kind,omitempty"`
	Error  string `json:"error,omitempty"`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	digest, err := run(ctx, os.Args[1:])
	if err != nil {
		say(result{Kind: kind(err), Error: err.Error()})
		os.Exit(1)
	}
	say(result{Digest: digest})
}

func run(ctx context.Context, args []string) (string, error) {
	flags := flag.NewFlagSet("fetch", flag.ContinueOnError)
	wanted := flags.String("platform", "linux/amd64", "OS/ARCH to choose where there are several")
	if len(args) == 0 {
		return "", errors.New("say file or digest")
	}
	if err := flags.Parse(args[1:]); err != nil {
		return "", err
	}
	switch verb := args[0]; {
	case verb == "file" && flags.NArg() == 3:
		platform, err := v1.ParsePlatform(*wanted)
		if err != nil {
			return "", err
		}
		return file(ctx, flags.Arg(0), *platform, flags.Arg(1), flags.Arg(2))
	case verb == "digest" && flags.NArg() == 1:
		return digest(ctx, flags.Arg(0))
	default:
		return "", fmt.Errorf("%s does not take these arguments", verb)
	}
}

// file writes one file of an image, and returns the image's digest: that of the index if it is one.
func file(ctx context.Context, image string, on v1.Platform, path, output string) (string, error) {
	found, err := get(ctx, image, remote.WithPlatform(on))
	if err != nil {
		return "", err
	}
	chosen, err := found.Image()
	if err != nil {
		return "", err
	}
	layers, err := chosen.Layers()
	if err != nil {
		return "", err
	}
	return found.Digest.String(), take(ctx, layers, path, output)
}

// digest returns the digest of an image, of all its platforms where it has several.
func digest(ctx context.Context, image string) (string, error) {
	found, err := get(ctx, image)
	if err != nil {
		return "", err
	}
	return found.Digest.String(), nil
}

func get(ctx context.Context, image string, more ...remote.Option) (*remote.Descriptor, error) {
	reference, err := name.ParseReference(image)
	if err != nil {
		return nil, err
	}
	return remote.Get(reference, append(more,
		remote.WithContext(ctx),
		// What `docker login` keeps; without, nobody in particular.
		remote.WithAuthFromKeychain(authn.DefaultKeychain),
		remote.WithTransport(newPatient(client())),
		// 429 is the transport's own, which knows how long the registry asks to wait.
		remote.WithRetryStatusCodes(http.StatusBadGateway, http.StatusServiceUnavailable),
		remote.WithRetryBackoff(remote.Backoff{Duration: 500 * time.Millisecond, Factor: 2, Steps: 2}),
		remote.WithUserAgent("stackproof"),
	)...)
}

func kind(err error) string {
	var answer *transport.Error
	var network net.Error
	switch {
	case errors.As(err, &answer) && answer.StatusCode == http.StatusTooManyRequests:
		return "limited"
	case errors.As(err, &answer) && answer.StatusCode >= http.StatusInternalServerError:
		return "unreachable"
	case errors.As(err, &answer):
		return "refused"
	case errors.As(err, &network), errors.Is(err, syscall.ECONNRESET):
		return "unreachable"
	default:
		return "wrong"
	}
}

func say(what any) {
	line, err := json.Marshal(what)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(line))
}
