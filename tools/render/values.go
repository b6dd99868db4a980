package main

import (
	"fmt"
	"maps"
	"sync"

	"sigs.k8s.io/yaml"
)

// valuesCache keeps parsed values files by text: the same few files come with most requests.
// Parsed values are never changed afterwards.
type valuesCache struct{ kept sync.Map }

// merge reads the sources in order, each over those before it, as `helm -f one -f two` does.
func (c *valuesCache) merge(
	sources []valuesSource, names []string,
) (map[string]any, *failure) {
	merged := map[string]any{}
	for number, source := range sources {
		values := source.JSON
		if values == nil {
			var err error
			if values, err = c.parse(source.YAML); err != nil {
				name := fmt.Sprintf("values %d", number+1)
				if number < len(names) && names[number] != "" {
					name = names[number]
				}
				return nil, loadFailure(fmt.Errorf("failed to parse %s: %w", name, err))
			}
		}
		merged = laidOver(merged, values)
	}
	return merged, nil
}

func (c *valuesCache) parse(text string) (map[string]any, error) {
	if found, ok := c.kept.Load(text); ok {
		return found.(map[string]any), nil
	}
	values := map[string]any{}
	if err := yaml.Unmarshal([]byte(text), &values); err != nil {
		return nil, err
	}
	c.kept.Store(text, values)
	return values, nil
}

// laidOver returns lower with upper over it: maps merge, everything else replaces.
func laidOver(lower, upper map[string]any) map[string]any {
	merged := maps.Clone(lower)
	for key, value := range upper {
		above, aboveIsMap := value.(map[string]any)
		below, belowIsMap := merged[key].(map[string]any)
		if aboveIsMap && belowIsMap {
			merged[key] = laidOver(below, above)
		} else {
			merged[key] = value
		}
	}
	return merged
}
