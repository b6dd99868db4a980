package main

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// answers gives them one after the other, the last one for ever.
type answers struct {
	status []int
	after  string
	asked  int
}

func (a *answers) RoundTrip(*http.Request) (*http.Response, error) {
	status := a.status[min(a.asked, len(a.status)-1)]
	a.asked++
	header := http.Header{}
	header.Set("Retry-After", a.after)
	return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(strings.NewReader(""))}, nil
}

func TestWhoIsToldToWaitWaits(t *testing.T) {
	for _, each := range []struct {
		after  string
		status []int
		want   int
		asked  int
		waited time.Duration
	}{
		{"7", []int{429, 200}, 200, 2, 7 * time.Second},
		{"", []int{429, 429, 200}, 200, 3, 2 * time.Second},
		{"1", []int{429}, 429, 3, 2 * time.Second},
		{"3600", []int{429, 200}, 429, 1, 0},
		{"7", []int{404}, 404, 1, 0},
	} {
		registry := &answers{status: each.status, after: each.after}
		var waited time.Duration
		asks := &patient{registry, func(_ context.Context, wait time.Duration) error {
			waited += wait
			return nil
		}}
		request, _ := http.NewRequest(http.MethodGet, "https://registry.example/v2/", nil)
		answer, err := asks.RoundTrip(request)
		if err != nil || answer.StatusCode != each.want || registry.asked != each.asked || waited != each.waited {
			t.Errorf("%+v: %v, asked %d times, waited %s, %v", each, answer, registry.asked, waited, err)
		}
	}
}

func TestPlainHTTPIsForThisMachine(t *testing.T) {
	for url, allowed := range map[string]bool{
		"http://127.0.0.1:5000/v2/":     true,
		"http://localhost:5000/v2/":     true,
		"http://[::1]:5000/v2/":         true,
		"http://10.0.0.7:5000/v2/":      false,
		"http://registry.example/token": false,
		"https://registry.example/v2/":  true,
	} {
		request, _ := http.NewRequest(http.MethodGet, url, nil)
		_, err := newPatient(&answers{status: []int{200}}).RoundTrip(request)
		if (err == nil) != allowed {
			t.Errorf("%s: %v", url, err)
		}
	}
}
