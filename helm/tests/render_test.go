package chart_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	certmanager "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	apps "k8s.io/api/apps/v1"
	autoscaling "k8s.io/api/autoscaling/v2"
	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

const chartDir = "../starling"

// kinds is every kind of object that the chart makes.
var kinds = map[string]func() object{
	"v1 ConfigMap":                            func() object { return &core.ConfigMap{} },
	"v1 Secret":                               func() object { return &core.Secret{} },
	"v1 Service":                              func() object { return &core.Service{} },
	"v1 ServiceAccount":                       func() object { return &core.ServiceAccount{} },
	"apps/v1 Deployment":                      func() object { return &apps.Deployment{} },
	"autoscaling/v2 HorizontalPodAutoscaler":  func() object { return &autoscaling.HorizontalPodAutoscaler{} },
	"batch/v1 Job":                            func() object { return &batch.Job{} },
	"cert-manager.io/v1 Certificate":          func() object { return &certmanager.Certificate{} },
	"monitoring.coreos.com/v1 PrometheusRule": func() object { return &monitoring.PrometheusRule{} },
	"monitoring.coreos.com/v1 ServiceMonitor": func() object { return &monitoring.ServiceMonitor{} },
	"networking.k8s.io/v1 NetworkPolicy":      func() object { return &networking.NetworkPolicy{} },
	"policy/v1 PodDisruptionBudget":           func() object { return &policy.PodDisruptionBudget{} },
}

// object is an object of any of the kinds.
type object interface {
	meta.Object
	runtime.Object
}

// release is what Helm makes of the chart and some values.
type release struct {
	name    string
	objects []object
	texts   []string // of the objects, as they were rendered
	notes   string
}

var loadChart = sync.OnceValues(func() (*chart.Chart, error) { return loader.LoadDir(chartDir) })

// readValues reads one of the files of values.
func readValues(t *testing.T, file string) map[string]any {
	t.Helper()
	values, err := common.ReadValuesFile(filepath.Join(chartDir, "ci", file))
	if err != nil {
		t.Fatal(err)
	}
	return values
}

// minimal is the least that must be given, and what the YAML adds to it or sets otherwise.
func minimal(t *testing.T, more string) map[string]any {
	t.Helper()
	return with(t, readValues(t, "minimal-values.yaml"), more)
}

func with(t *testing.T, values map[string]any, more string) map[string]any {
	t.Helper()
	over, err := common.ReadValues([]byte(more))
	if err != nil {
		t.Fatalf("%s: %v", more, err)
	}
	return loader.MergeMaps(values, over)
}

// tryRender renders the chart as `helm install NAME -n mail` does.
func tryRender(name string, values map[string]any) (*release, error) {
	c, err := loadChart()
	if err != nil {
		return nil, err
	}
	all, err := util.ToRenderValues(c, values, common.ReleaseOptions{Name: name, Namespace: "mail", Revision: 1, IsInstall: true}, nil)
	if err != nil {
		return nil, err
	}
	files, err := engine.Render(c, all)
	if err != nil {
		return nil, err
	}
	r := &release{name: name}
	for file, text := range files {
		switch {
		case filepath.Base(file) == "NOTES.txt":
			r.notes = text
		case strings.HasSuffix(file, ".yaml"):
			if err := r.add(text); err != nil {
				return nil, err
			}
		}
	}
	return r, nil
}

// add decodes the objects of a file, each strictly as what it says it is.
func (r *release) add(file string) error {
	for text := range strings.SplitSeq("\n"+file, "\n---\n") {
		var kind meta.TypeMeta
		if err := yaml.Unmarshal([]byte(text), &kind); err != nil {
			return &decodeError{text, err}
		}
		if kind == (meta.TypeMeta{}) && len(bytes.TrimSpace(withoutComments(text))) == 0 {
			continue
		}
		newObject, ok := kinds[kind.APIVersion+" "+kind.Kind]
		if !ok {
			return &decodeError{text, os.ErrNotExist}
		}
		o := newObject()
		if err := yaml.UnmarshalStrict([]byte(text), o); err != nil {
			return &decodeError{text, err}
		}
		r.objects = append(r.objects, o)
		r.texts = append(r.texts, text)
	}
	return nil
}

type decodeError struct {
	text string
	err  error
}

func (e *decodeError) Error() string { return e.err.Error() + " in:\n" + e.text }

func (e *decodeError) Unwrap() error { return e.err }

func withoutComments(text string) []byte {
	lines := strings.Split(text, "\n")
	return []byte(strings.Join(slices.DeleteFunc(lines, func(l string) bool { return strings.HasPrefix(l, "#") }), "\n"))
}

func render(t *testing.T, name string, values map[string]any) *release {
	t.Helper()
	r, err := tryRender(name, values)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// eachFile runs a test with each file of values.
func eachFile(t *testing.T, test func(t *testing.T, file string, r *release)) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(chartDir, "ci", "*-values.yaml"))
	if err != nil || len(files) < 4 {
		t.Fatalf("files of values: %v, %v", files, err)
	}
	for _, file := range files {
		file := filepath.Base(file)
		t.Run(strings.TrimSuffix(file, "-values.yaml"), func(t *testing.T) {
			t.Parallel()
			test(t, file, render(t, "post", readValues(t, file)))
		})
	}
}

// all returns the objects of a type.
func all[T object](r *release) (found []T) {
	for _, o := range r.objects {
		if o, ok := o.(T); ok {
			found = append(found, o)
		}
	}
	return found
}

// one returns the only object of a type whose name ends so.
func one[T object](t *testing.T, r *release, suffix string) T {
	t.Helper()
	found := slices.DeleteFunc(all[T](r), func(o T) bool { return !strings.HasSuffix(o.GetName(), suffix) })
	if len(found) != 1 {
		t.Fatalf("%d objects of this type end in %q", len(found), suffix)
	}
	return found[0]
}

// frontend returns the Deployment of the frontends.
func frontend(t *testing.T, r *release) *apps.Deployment {
	t.Helper()
	for _, d := range all[*apps.Deployment](r) {
		if d.Spec.Template.Labels["app.kubernetes.io/component"] == "frontend" {
			return d
		}
	}
	t.Fatal("no frontends")
	return nil
}

// pods returns the pods that the release makes, by the name of who makes them.
func pods(r *release) map[string]*core.PodTemplateSpec {
	found := make(map[string]*core.PodTemplateSpec)
	for _, d := range all[*apps.Deployment](r) {
		found[d.Name] = &d.Spec.Template
	}
	for _, j := range all[*batch.Job](r) {
		found[j.Name] = &j.Spec.Template
	}
	return found
}
