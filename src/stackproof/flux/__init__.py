"""The Flux tree, built as Flux' controllers would build it, and what must hold for it.

`tree` builds it (kustomize, post-build substitution, Helm), in the order of its dependencies;
`checks` says what is wrong with it; `diff` compares two of them, and `immutable` says what of that
Kubernetes would refuse; `tenant` writes a tenant's folder.
"""
