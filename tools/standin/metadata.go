package main

import (
	"fmt"
	"net/http"
)

// metadata answers as the metadata server of GKE does to a pod whose Kubernetes service account may act as
// a Google one (Workload Identity): the libraries that a program is linked with get their token there.
// The token is worth something only to a store that asks for none.
func metadata() http.Handler {
	const path = "/computeMetadata/v1"
	said := map[string]string{
		path + "/project/project-id":       "stackproof",
		path + "/universe/universe-domain": "googleapis.com",
		path + "/instance/service-accounts/default/token": `{"access_token": "stand-in", "expires_in": 3600, ` +
			`"token_type": "Bearer"}`,
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Metadata-Flavor", "Google")
		text, known := said[r.URL.Path]
		if !known {
			http.NotFound(w, r)
			return
		}
		fmt.Fprint(w, text)
	})
}
