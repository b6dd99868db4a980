# What only the workflows call, as targets, so that it can be tried at a desk too. Included by the Makefile.

.PHONY: lowest flux-check flux-diff ci-summary ci-coverage ci-comment ci-gate ci-issue
.PHONY: release-check release-login release-image release-charts release-page

REV ?= origin/main
FAIL_ON ?= refused,data-loss
FLUX_DIFF := build/report/flux-diff.md
SUMMARY := $(or $(GITHUB_STEP_SUMMARY),/dev/stdout)
RED ?= The nightly proof on real clusters is red

flux-check: $(READY) ## Check the Flux tree: built offline, as the controllers would
	@$(BIN)/stackproof flux check $(ARGS)

flux-diff: $(READY) ## Show what the cluster would change since REV (default: origin/main); fail on FAIL_ON
	@code=0; $(BIN)/stackproof flux diff $(REV) --fail-on $(FAIL_ON) --markdown $(FLUX_DIFF) $(ARGS) || code=$$?; \
	[ -z "$(GITHUB_STEP_SUMMARY)" ] || cat $(FLUX_DIFF) >> $(SUMMARY); exit $$code

lowest: programs ## Run the library's tests on the lowest versions that pyproject.toml allows
	@$(BIN)/uv venv --quiet --clear build/lowest
	@$(BIN)/uv pip install --quiet --python build/lowest --resolution lowest-direct --editable '.[docker,flux,kind,test]'
	@build/lowest/bin/python -m pytest tests/unit/library -n logical --dist loadgroup $(ARGS)

# The verdict of the proof and the faults that were put back, for the page of the run.
ci-summary: $(READY)
	@$(BIN)/python tools/summary.py build/report >> $(SUMMARY)

ci-coverage: $(READY)
	@echo "Unit tests cover $$($(BIN)/coverage report --format=total) % of src/stackproof, lines and branches." >> $(SUMMARY)

ci-comment:
	@gh pr comment $(PR) --edit-last --create-if-none --body-file $(FLUX_DIFF)

# RESULTS: what became of the jobs before, in one line.
ci-gate:
	@[ -n "$(RESULTS)" ] || { echo "RESULTS is empty: which jobs?" >&2; exit 1; }
	@for result in $(RESULTS); do [ $$result = success ] || { echo "a job is: $$result" >&2; exit 1; }; done
	@echo "every job is a success"

ci-issue:
	@number=$$(gh issue list --state open --search '"$(RED)" in:title' --json number --jq '.[0].number // empty'); \
	if [ -n "$$number" ]; then gh issue comment "$$number" --body "Again: $(RUN_URL)"; \
	else gh issue create --title "$(RED)" --body "The run, with its evidence: $(RUN_URL)"; fi

# --- Releases: what release.yaml runs after `make dist`. TAG is v and the version of the command. ---

OWNER ?= gradient-ds
HOST ?= ghcr.io
NOTES := build/notes.md

release-check: $(READY)
	@version=$$($(BIN)/python -c 'import stackproof; print(stackproof.__version__)'); \
	[ "$(TAG)" = "v$$version" ] || { echo "the tag is '$(TAG)', the version $$version (pyproject.toml)" >&2; exit 1; }; \
	mkdir -p build; awk -v head="## [$$version]" \
	  'index($$0, head) == 1 {on = 1; next} /^## |^\[/ {on = 0} on' CHANGELOG.md > $(NOTES); \
	[ -s $(NOTES) ] || { echo "CHANGELOG.md has nothing of $$version" >&2; exit 1; }

# GH_TOKEN, of GITHUB_ACTOR, may write packages.
release-login: $(READY)
	@echo "$$GH_TOKEN" | $(HELM) registry login $(HOST) --username "$$GITHUB_ACTOR" --password-stdin
	@echo "$$GH_TOKEN" | docker login $(HOST) --username "$$GITHUB_ACTOR" --password-stdin

release-image:
	@docker build --tag $(HOST)/$(OWNER)/stackproof:$(TAG) .
	@docker push $(HOST)/$(OWNER)/stackproof:$(TAG)

release-charts: $(READY)
	@for chart in dist/*.tgz; do $(HELM) push "$$chart" oci://$(HOST)/$(OWNER)/charts; done

release-page:
	@gh release create $(TAG) dist/* --title $(TAG) --notes-file $(NOTES) --verify-tag
