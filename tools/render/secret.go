package main

import (
	"fmt"
	"maps"
	"strings"
	"text/template"

	"github.com/Masterminds/sprig/v3"
	"golang.org/x/crypto/bcrypt"
)

// secretFunctions is what the External Secrets Operator gives its templates, but for what reads
// certificates and keys; and bcrypt costs as little as it may, because what is hashed here is random
// and lives for minutes.
// Source: external-secrets, pkg/template/v2/template.go.
var secretFunctions = func() template.FuncMap {
	known := template.FuncMap{}
	maps.Copy(known, sprig.TxtFuncMap())
	delete(known, "env")
	delete(known, "expandenv")
	known["bcrypt"] = cheapBcrypt
	return known
}()

// cheapBcrypt is sprig's function at the lowest cost: an error is a text like any other to it.
func cheapBcrypt(input string) string {
	hash, err := bcrypt.GenerateFromPassword([]byte(input), bcrypt.MinCost)
	if err != nil {
		return fmt.Sprintf("failed to encrypt string with bcrypt: %s", err)
	}
	return string(hash)
}

// secret executes the templates of an ExternalSecret as the operator does: all of them, or none.
func secret(templates map[string]string, data map[string][]byte) (map[string][]byte, *failure) {
	values := make(map[string]string, len(data))
	for key, value := range data {
		values[key] = string(value)
	}
	made := make(map[string][]byte, len(templates))
	for key, text := range templates {
		parsed, err := template.New(key).Option("missingkey=error").Funcs(secretFunctions).Parse(text)
		if err != nil {
			return nil, &failure{Kind: "template", Message: err.Error()}
		}
		var result strings.Builder
		if err := parsed.Execute(&result, values); err != nil {
			return nil, &failure{Kind: "template", Message: err.Error()}
		}
		made[key] = []byte(result.String())
	}
	return made, nil
}
