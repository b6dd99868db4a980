# What only the workflows call, as targets, so that it can be tried at a desk too. Included by the Makefile.

.PHONY: flux-check flux-diff ci-summary ci-comment ci-gate ci-issue

REV ?= origin/main
FAIL_ON ?= refused,data-loss
FLUX_DIFF := build/report/flux-diff.md
SUMMARY := $(or $(GITHUB_STEP_SUMMARY),/dev/stdout)
NIGHTLY := The nightly proof on real clusters is red

flux-check: $(READY) ## Check the Flux tree: built offline, as the controllers would
	@$(BIN)/stackproof flux check $(ARGS)

flux-diff: $(READY) ## Show what the cluster would change since REV (default: origin/main); fail on FAIL_ON
	@code=0; $(BIN)/stackproof flux diff $(REV) --fail-on $(FAIL_ON) --markdown $(FLUX_DIFF) $(ARGS) || code=$$?; \
	[ -z "$(GITHUB_STEP_SUMMARY)" ] || cat $(FLUX_DIFF) >> $(SUMMARY); exit $$code

# The verdict of the proof and the faults that were put back, for the page of the run.
ci-summary: $(READY)
	@$(BIN)/python tools/summary.py build/report >> $(SUMMARY)

ci-comment:
	@gh pr comment $(PR) --edit-last --create-if-none --body-file $(FLUX_DIFF)

# RESULTS: what became of the jobs before, in one line.
ci-gate:
	@[ -n "$(RESULTS)" ] || { echo "RESULTS is empty: which jobs?" >&2; exit 1; }
	@for result in $(RESULTS); do [ $$result = success ] || { echo "a job is: $$result" >&2; exit 1; }; done
	@echo "every job is a success"

ci-issue:
	@number=$$(gh issue list --state open --search '"$(NIGHTLY)" in:title' --json number --jq '.[0].number // empty'); \
	if [ -n "$$number" ]; then gh issue comment "$$number" --body "Again: $(RUN_URL)"; \
	else gh issue create --title "$(NIGHTLY)" --body "The run, with its evidence: $(RUN_URL)"; fi
