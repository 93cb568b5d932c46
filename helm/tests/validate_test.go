package chart_test

import (
	"fmt"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/lint/support"
	core "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/apis/apps"
	_ "k8s.io/kubernetes/pkg/apis/apps/install"
	appsvalidation "k8s.io/kubernetes/pkg/apis/apps/validation"
	"k8s.io/kubernetes/pkg/apis/autoscaling"
	_ "k8s.io/kubernetes/pkg/apis/autoscaling/install"
	autoscalingvalidation "k8s.io/kubernetes/pkg/apis/autoscaling/validation"
	"k8s.io/kubernetes/pkg/apis/batch"
	_ "k8s.io/kubernetes/pkg/apis/batch/install"
	batchvalidation "k8s.io/kubernetes/pkg/apis/batch/validation"
	api "k8s.io/kubernetes/pkg/apis/core"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"
	"k8s.io/kubernetes/pkg/apis/networking"
	_ "k8s.io/kubernetes/pkg/apis/networking/install"
	networkingvalidation "k8s.io/kubernetes/pkg/apis/networking/validation"
	"k8s.io/kubernetes/pkg/apis/policy"
	_ "k8s.io/kubernetes/pkg/apis/policy/install"
	policyvalidation "k8s.io/kubernetes/pkg/apis/policy/validation"
)

// Every object is one that an API server takes: it decodes without a field that is
// unknown or there twice, which render does, and its validation finds nothing.
func TestObjectsAreValid(t *testing.T) {
	t.Parallel()
	eachFile(t, func(t *testing.T, _ string, r *release) {
		for i, o := range r.objects {
			if errs := validate(t, o); len(errs) > 0 {
				t.Errorf("%v in:\n%s", errs.ToAggregate(), r.texts[i])
			}
		}
	})
}

// The validation above finds what decoding cannot: a test of the test.
func TestValidationRefuses(t *testing.T) {
	t.Parallel()
	r := render(t, "post", minimal(t, ""))
	d := frontend(t, r)
	d.Spec.Template.Spec.Containers[0].VolumeMounts[0].Name = "gone"
	if errs := validate(t, d); len(errs) != 1 || !strings.Contains(errs[0].Error(), "volumeMounts[0].name") {
		t.Errorf("a mount without a volume: %v", errs)
	}
	s := all[*core.Service](r)[0]
	s.Spec.Ports[0].Port = 70000
	if errs := validate(t, s); len(errs) != 1 || !strings.Contains(errs[0].Error(), "spec.ports[0].port") {
		t.Errorf("a port of 70000: %v", errs)
	}
}

// validate runs the API server's validation on an object of Kubernetes itself, with
// its defaults filled in as the API server does.
func validate(t *testing.T, o object) field.ErrorList {
	t.Helper()
	if !legacyscheme.Scheme.Recognizes(o.GetObjectKind().GroupVersionKind()) {
		return nil // of an operator: decoded strictly
	}
	o, ok := o.DeepCopyObject().(object)
	if !ok {
		t.Fatal("a copy is something else")
	}
	// Here and below: what an API server fills in before it validates.
	o.SetUID("9c1c3f0e-8b1c-4f5e-9b8e-0d2f1c0a7b11")
	legacyscheme.Scheme.Default(o)
	internal, err := legacyscheme.Scheme.ConvertToVersion(o, runtime.InternalGroupVersioner)
	if err != nil {
		t.Fatal(err)
	}
	switch o := internal.(type) {
	case *apps.Deployment:
		return appsvalidation.ValidateDeployment(o, corevalidation.PodValidationOptions{})
	case *autoscaling.HorizontalPodAutoscaler:
		return autoscalingvalidation.ValidateHorizontalPodAutoscaler(o, autoscalingvalidation.HorizontalPodAutoscalerSpecValidationOptions{MinReplicasLowerBound: 1})
	case *batch.Job:
		o.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"batch.kubernetes.io/controller-uid": string(o.UID)}}
		for name, value := range map[string]string{"controller-uid": string(o.UID), "job-name": o.Name} {
			o.Spec.Template.Labels[name] = value
			o.Spec.Template.Labels["batch.kubernetes.io/"+name] = value
		}
		return batchvalidation.ValidateJobCreate(o, batchvalidation.JobValidationOptions{RequirePrefixedLabels: true})
	case *api.ConfigMap:
		return corevalidation.ValidateConfigMap(o)
	case *api.Secret:
		return corevalidation.ValidateSecret(o)
	case *api.Service:
		if o.Spec.ClusterIP != "" {
			o.Spec.ClusterIPs = []string{o.Spec.ClusterIP}
		}
		if o.Spec.ExternalTrafficPolicy == api.ServiceExternalTrafficPolicyLocal {
			o.Spec.HealthCheckNodePort = 30000
		}
		return corevalidation.ValidateServiceCreate(o)
	case *api.ServiceAccount:
		return corevalidation.ValidateServiceAccount(o)
	case *networking.NetworkPolicy:
		return networkingvalidation.ValidateNetworkPolicy(o, networkingvalidation.NetworkPolicyValidationOptions{})
	case *policy.PodDisruptionBudget:
		return policyvalidation.ValidatePodDisruptionBudget(o, policyvalidation.PodDisruptionBudgetValidationOptions{})
	}
	return field.ErrorList{field.InternalError(nil, fmt.Errorf("no validation of %T", internal))}
}

// What `helm lint` says.
func TestLint(t *testing.T) {
	t.Parallel()
	eachFile(t, func(t *testing.T, file string, _ *release) {
		for _, m := range lint.RunAll(chartDir, readValues(t, file), "mail").Messages {
			if m.Severity > support.InfoSev {
				t.Error(m)
			}
		}
	})
}
