package main

import (
	"encoding/json"
	"fmt"
	"net/http"
)

type message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// A model provider with the API of OpenAI, below whatever path it is asked: it says what it was told.
// https://platform.openai.com/docs/api-reference/chat
func newProvider() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{key}/v1/models", func(w http.ResponseWriter, r *http.Request) {
		reply(w, map[string]any{"object": "list", "data": []any{map[string]any{"id": "echo", "object": "model"}}})
	})
	mux.HandleFunc("POST /{key}/v1/chat/completions", func(w http.ResponseWriter, r *http.Request) {
		var asked struct {
			Messages []message `json:"messages"`
			Stream   bool      `json:"stream"`
		}
		if err := json.NewDecoder(r.Body).Decode(&asked); err != nil || len(asked.Messages) == 0 {
			http.Error(w, "no messages", http.StatusBadRequest)
			return
		}
		said := message{"assistant", "You said: " + asked.Messages[len(asked.Messages)-1].Content}
		if asked.Stream {
			w.Header().Set("Content-Type", "text/event-stream")
			fmt.Fprint(w, "data: ")
			reply(w, completion("chat.completion.chunk", "delta", said))
			fmt.Fprint(w, "\ndata: [DONE]\n\n")
			return
		}
		reply(w, completion("chat.completion", "message", said))
	})
	return mux
}

func completion(object, part string, said message) map[string]any {
	choice := map[string]any{"index": 0, part: said, "finish_reason": "stop"}
	return map[string]any{"id": "echo-1", "object": object, "model": "echo", "choices": []any{choice}}
}

func reply(w http.ResponseWriter, body any) {
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", "application/json")
	}
	json.NewEncoder(w).Encode(body)
}
