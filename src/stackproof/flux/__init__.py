"""The Flux tree, built as Flux' controllers would build it, and what must hold for it.

`controllers` asks the controllers' own packages what becomes of a step (`tools/flux`), `objects`
finds what one object names among the others, `releases` says what becomes of a HelmRelease, and
`tree` does so for all of them, dependencies first;
`checks` says what is wrong with it; `diff` compares two of them, and `immutable` says what of that
Kubernetes would refuse; `tenant` writes a tenant's folder.
"""
