{{- /* For External Secrets: the line of one account in the gateway's users, or an error that names the fault.
       bcrypt takes 72 bytes, and of more it makes a text that says so, which Caddy would not start with. */ -}}
{{- $password := trim .password -}}
{{- if not $password }}{{ fail "the password is empty" }}{{ end -}}
{{- $hash := bcrypt $password -}}
{{- if not (hasPrefix "$2" $hash) }}{{ fail $hash }}{{ end -}}
ACCOUNT {{ $hash }}
