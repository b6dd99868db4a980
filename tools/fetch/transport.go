package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"
)

const (
	connecting = 5 * time.Second
	answering  = 20 * time.Second
	// No byte for so long, and the registry is taken for gone.
	silence = 30 * time.Second

	tries = 3
	// Who asks to wait for longer is asked no more.
	longest = 20 * time.Second
)

// client returns what asks: through the proxies of the environment, and never for long in vain.
func client() http.RoundTripper {
	dialer := net.Dialer{Timeout: connecting}
	return &http.Transport{
		Proxy: http.ProxyFromEnvironment,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			connection, err := dialer.DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return &impatient{connection}, nil
		},
		ForceAttemptHTTP2:     true,
		TLSHandshakeTimeout:   connecting,
		ResponseHeaderTimeout: answering,
	}
}

// impatient is a connection that fails where nothing comes any more.
type impatient struct{ net.Conn }

func (c *impatient) Read(into []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(silence)); err != nil {
		return 0, err
	}
	return c.Conn.Read(into)
}

// patient asks again whom a registry tells to wait, and speaks plain HTTP on this machine alone.
type patient struct {
	inner http.RoundTripper
	sleep func(context.Context, time.Duration) error
}

func newPatient(inner http.RoundTripper) *patient { return &patient{inner, sleep} }

func (t *patient) RoundTrip(request *http.Request) (*http.Response, error) {
	if request.URL.Scheme != "https" && !loopback(request.URL.Hostname()) {
		return nil, fmt.Errorf("%s is asked over HTTPS alone", request.URL.Host)
	}
	for try := 1; ; try++ {
		answer, err := t.inner.RoundTrip(request)
		if err != nil || answer.StatusCode != http.StatusTooManyRequests || try == tries {
			return answer, err
		}
		wait := time.Second
		if seconds, err := strconv.Atoi(answer.Header.Get("Retry-After")); err == nil {
			wait = time.Duration(seconds) * time.Second
		}
		if wait > longest {
			return answer, nil
		}
		answer.Body.Close()
		if err := t.sleep(request.Context(), wait); err != nil {
			return nil, err
		}
	}
}

func sleep(ctx context.Context, wait time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(wait):
		return nil
	}
}

func loopback(host string) bool {
	address := net.ParseIP(host)
	return host == "localhost" || (address != nil && address.IsLoopback())
}
