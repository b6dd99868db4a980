package main

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/Masterminds/semver/v3"
)

// imagePolicy is the spec of an ImagePolicy.
type imagePolicy struct {
	FilterTags *struct {
		Pattern string `json:"pattern"`
		Extract string `json:"extract"`
	} `json:"filterTags"`
	Policy struct {
		SemVer *struct {
			Range string `json:"range"`
		} `json:"semver"`
		Numerical    *struct{} `json:"numerical"`
		Alphabetical *struct{} `json:"alphabetical"`
	} `json:"policy"`
}

// accepted gives the tags that a policy chooses from, as image-reflector-controller does: a filter
// takes what is compared out of a tag, and a version or a number must be one.
func accepted(asked *request, reply *response) error {
	policy := asked.Policy
	var filter *regexp.Regexp
	var constraint *semver.Constraints
	var err error
	if policy.FilterTags != nil {
		if filter, err = regexp.Compile(policy.FilterTags.Pattern); err != nil {
			return fmt.Errorf("filterTags.pattern: %w", err)
		}
	}
	if policy.Policy.SemVer != nil {
		if constraint, err = semver.NewConstraint(policy.Policy.SemVer.Range); err != nil {
			return fmt.Errorf("policy.semver.range %q: %w", policy.Policy.SemVer.Range, err)
		}
	}
	for _, tag := range asked.Files {
		text := tag
		if filter != nil {
			match := filter.FindStringSubmatchIndex(tag)
			if match == nil {
				continue
			}
			if extract := policy.FilterTags.Extract; extract != "" {
				text = string(filter.ExpandString(nil, extract, tag, match))
			}
		}
		if constraint != nil {
			// fluxcd/pkg/version: a version is complete, whether or not it has a v.
			if _, err := semver.StrictNewVersion(strings.TrimPrefix(text, "v")); err != nil {
				continue
			}
			if version, err := semver.NewVersion(text); err != nil || !constraint.Check(version) {
				continue
			}
		}
		if policy.Policy.Numerical != nil {
			if _, err := strconv.ParseFloat(text, 64); err != nil {
				continue
			}
		}
		reply.Accepted = append(reply.Accepted, tag)
	}
	return nil
}
