package chart_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/yannh/kubeconform/pkg/resource"
	"github.com/yannh/kubeconform/pkg/validator"
)

// What kubeconform says of every object, strictly, with the schemas that the API server of the required
// version of Kubernetes publishes. Those of operators are not among them.
func TestKubeconform(t *testing.T) {
	t.Parallel()
	schemas := kubernetesSchemas(t)
	v, err := validator.New([]string{filepath.Join(schemas, "{{.ResourceKind}}{{.KindSuffix}}.json")}, validator.Opts{
		Strict:    true,
		SkipKinds: map[string]struct{}{"Certificate": {}, "PrometheusRule": {}, "ServiceMonitor": {}},
	})
	if err != nil {
		t.Fatal(err)
	}
	wrong := v.ValidateResource(resource.Resource{Bytes: []byte("apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {port: 1}\n")})
	if wrong.Status != validator.Invalid {
		t.Fatalf("a Service with a field that there is not: %v, %v", wrong.Status, wrong.Err)
	}
	eachFile(t, func(t *testing.T, _ string, r *release) {
		checked := 0
		for _, text := range r.texts {
			switch result := v.ValidateResource(resource.Resource{Bytes: []byte(text)}); result.Status {
			case validator.Valid:
				checked++
			case validator.Skipped:
			default:
				t.Errorf("%v in:\n%s", result.Err, text)
			}
		}
		if checked < 8 {
			t.Errorf("only %d objects were checked", checked)
		}
	})
}

// kubernetesSchemas makes a folder with a schema for each kind that is rendered, from the OpenAPI document of the
// module k8s.io/kubernetes, closed against fields that it does not know.
func kubernetesSchemas(t *testing.T) string {
	t.Helper()
	module, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes").Output()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(module)), "api", "openapi-spec", "swagger.json"))
	if err != nil {
		t.Fatal(err)
	}
	var document struct {
		Definitions map[string]map[string]any `json:"definitions"`
	}
	if err := json.Unmarshal(text, &document); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name := range document.Definitions {
		closeDefinition(document.Definitions, name)
	}
	for kind := range kinds {
		version, kind, _ := strings.Cut(kind, " ")
		group, version := cutGroup(version)
		for name, definition := range document.Definitions {
			if !isKind(definition, group, version, kind) {
				continue
			}
			schema := map[string]any{"$ref": "#/definitions/" + name, "definitions": reachable(document.Definitions, name)}
			text, err := json.Marshal(schema)
			if err != nil {
				t.Fatal(err)
			}
			suffix := "-" + version
			if group != "" {
				suffix = "-" + strings.Split(group, ".")[0] + "-" + version
			}
			if err := os.WriteFile(filepath.Join(dir, strings.ToLower(kind)+suffix+".json"), text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

func cutGroup(apiVersion string) (group, version string) {
	if group, version, ok := strings.Cut(apiVersion, "/"); ok {
		return group, version
	}
	return "", apiVersion
}

func isKind(definition map[string]any, group, version, kind string) bool {
	kinds, _ := definition["x-kubernetes-group-version-kind"].([]any)
	for _, k := range kinds {
		if k, ok := k.(map[string]any); ok && k["group"] == group && k["version"] == version && k["kind"] == kind {
			return true
		}
	}
	return false
}

// closeDefinition makes of a definition in OpenAPI one in JSON Schema: no other fields; and what may be a number
// or a text says so in its format alone there.
func closeDefinition(definitions map[string]map[string]any, name string) {
	definition := definitions[name]
	if _, ok := definition["properties"]; ok && definition["additionalProperties"] == nil {
		definition["additionalProperties"] = false
	}
	if definition["format"] == "int-or-string" || strings.HasSuffix(name, ".resource.Quantity") {
		definition["type"] = []string{"string", "number"}
		delete(definition, "format")
	}
}

// reachable returns a definition and those that it refers to.
func reachable(definitions map[string]map[string]any, name string) map[string]any {
	found := make(map[string]any)
	var visit func(v any)
	visit = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			for key, below := range v {
				if ref, ok := below.(string); ok && key == "$ref" {
					ref = strings.TrimPrefix(ref, "#/definitions/")
					if found[ref] == nil {
						found[ref] = definitions[ref]
						visit(definitions[ref])
					}
				}
				visit(below)
			}
		case []any:
			for _, below := range v {
				visit(below)
			}
		}
	}
	visit(map[string]any{"$ref": "#/definitions/" + name})
	return found
}
