package check

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"
)

const root = "../.."

func read(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// Every setting that a file here names is one.
func TestSettingsExist(t *testing.T) {
	known := string(read(t, root+"/docs/operations.md"))
	files := []string{"../compose.yaml", "../Dockerfile", "../secrets.sh"}
	manifests, err := filepath.Glob("../kubernetes/*.yaml")
	if err != nil || len(manifests) == 0 {
		t.Fatal("no manifests", err)
	}
	for _, file := range append(files, manifests...) {
		for _, name := range regexp.MustCompile(`GANTRY_[A-Z_]+`).FindAllString(string(read(t, file)), -1) {
			if !strings.Contains(known, "`"+name+"`") {
				t.Errorf("%s: there is no setting %s", file, name)
			}
		}
	}
}

func TestDockerfile(t *testing.T) {
	ast, err := parser.Parse(bytes.NewReader(read(t, "../Dockerfile")))
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range ast.Warnings {
		t.Error(w.Short)
	}
	stages, args, err := instructions.Parse(ast.AST, nil)
	if err != nil {
		t.Fatal(err)
	}
	// The Go version is the module's.
	version := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindSubmatch(read(t, root+"/go.mod"))[1]
	if got := args[0].Args[0].ValueString(); got != string(version) {
		t.Errorf("Go %s, go.mod has %s", got, version)
	}
	for _, stage := range stages {
		if stage.BaseName == "build" || stage.Name == "build" { // no image
			continue
		}
		var user string
		var healthy bool
		for _, c := range stage.Commands {
			switch c := c.(type) {
			case *instructions.UserCommand:
				user = c.User
			case *instructions.HealthCheckCommand:
				healthy = len(c.Health.Test) > 0
			}
		}
		if uid, _, _ := strings.Cut(user, ":"); uid == "" || uid == "0" {
			t.Errorf("the image %q runs as user %q", stage.Name, user)
		} else if _, err := strconv.Atoi(uid); err != nil {
			t.Errorf("a kubelet cannot see that user %q is not root: name it by number", user)
		}
		if !healthy {
			t.Errorf("the image %q has no health check", stage.Name)
		}
	}
	if last := stages[len(stages)-1]; last.BaseName != "scratch" {
		t.Errorf("the image that is built if none is named stands on %q", last.BaseName)
	}
}

// What .dockerignore lets into the image's build is enough to build the program, statically.
func TestContextBuilds(t *testing.T) {
	f, err := os.Open(root + "/.dockerignore")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	patterns, err := ignorefile.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	ignored, err := patternmatcher.New(patterns)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("git", "-C", root, "ls-files", "-co", "--exclude-standard").Output()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range strings.Fields(string(out)) {
		if skip, err := ignored.MatchesOrParentMatches(name); err != nil || skip {
			continue
		}
		text, err := os.ReadFile(filepath.Join(root, name))
		if os.IsNotExist(err) {
			continue // deleted, not yet committed
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-X main.release=v1.2.3", "-o", "gantry", "./cmd/gantry")
	build.Dir, build.Env = dir, append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := exec.Command(filepath.Join(dir, "gantry"), "version").Output(); err != nil || !strings.Contains(string(out), "v1.2.3") {
		t.Errorf("gantry version: %v %s", err, out)
	}
}

// manifests are the documents of docker/kubernetes, by kind and name, read strictly: an unknown field is an error.
func manifests(t *testing.T) map[string]any {
	t.Helper()
	kinds := map[string]func() any{
		"Namespace": func() any { return new(corev1.Namespace) }, "ConfigMap": func() any { return new(corev1.ConfigMap) },
		"PersistentVolumeClaim": func() any { return new(corev1.PersistentVolumeClaim) }, "Service": func() any { return new(corev1.Service) },
		"StatefulSet":         func() any { return new(appsv1.StatefulSet) },
		"PodDisruptionBudget": func() any { return new(policyv1.PodDisruptionBudget) }, "NetworkPolicy": func() any { return new(networkingv1.NetworkPolicy) },
	}
	var kustomization struct{ Resources []string }
	if err := yaml.Unmarshal(read(t, "../kubernetes/kustomization.yaml"), &kustomization); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("../kubernetes/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]any{}
	for _, file := range files {
		if filepath.Base(file) == "kustomization.yaml" {
			continue
		}
		if !slices.Contains(kustomization.Resources, filepath.Base(file)) {
			t.Errorf("%s is not in kustomization.yaml", file)
		}
		for _, doc := range strings.Split(string(read(t, file)), "\n---\n") {
			var head metav1.PartialObjectMetadata
			if err := yaml.Unmarshal([]byte(doc), &head); err != nil {
				t.Fatal(err)
			}
			make, ok := kinds[head.Kind]
			if !ok {
				t.Errorf("%s: unknown kind %q", file, head.Kind)
				continue
			}
			object := make()
			if err := yaml.UnmarshalStrict([]byte(doc), object); err != nil {
				t.Errorf("%s: %v", file, err)
			}
			found[head.Kind+"/"+head.Name] = object
		}
	}
	return found
}

func TestManifests(t *testing.T) {
	all := manifests(t)
	set := all["StatefulSet/gantry"].(*appsv1.StatefulSet)
	pod := set.Spec.Template
	settings := all["ConfigMap/gantry"].(*corev1.ConfigMap).Data

	if _, ok := all["Service/"+set.Spec.ServiceName]; !ok {
		t.Errorf("there is no Service %s for the StatefulSet", set.Spec.ServiceName)
	}
	for name, selector := range map[string]map[string]string{
		"StatefulSet": set.Spec.Selector.MatchLabels, "Service/gantry": all["Service/gantry"].(*corev1.Service).Spec.Selector,
		"Service/nodes":       all["Service/nodes"].(*corev1.Service).Spec.Selector,
		"PodDisruptionBudget": all["PodDisruptionBudget/gantry"].(*policyv1.PodDisruptionBudget).Spec.Selector.MatchLabels,
		"NetworkPolicy":       all["NetworkPolicy/gantry"].(*networkingv1.NetworkPolicy).Spec.PodSelector.MatchLabels,
	} {
		for key, value := range selector {
			if pod.Labels[key] != value {
				t.Errorf("%s selects %s=%s, the pods have %v", name, key, value, pod.Labels)
			}
		}
	}

	// Ports have the numbers of the settings, and everything that names one names one that is there.
	ports := map[string]int32{}
	volumes := map[string]bool{}
	for _, v := range append(pod.Spec.Volumes, corev1.Volume{Name: set.Spec.VolumeClaimTemplates[0].Name}) {
		volumes[v.Name] = true
	}
	for _, c := range pod.Spec.Containers {
		for _, p := range c.Ports {
			ports[p.Name] = p.ContainerPort
		}
		for _, m := range c.VolumeMounts {
			if !volumes[m.Name] {
				t.Errorf("container %s mounts %s, which is not there", c.Name, m.Name)
			}
		}
		if s := c.SecurityContext; s == nil || *s.AllowPrivilegeEscalation || !*s.ReadOnlyRootFilesystem {
			t.Errorf("container %s is not confined", c.Name)
		}
		for _, probe := range []*corev1.Probe{c.StartupProbe, c.LivenessProbe, c.ReadinessProbe} {
			if probe != nil && ports[probe.HTTPGet.Port.StrVal] == 0 {
				t.Errorf("a probe of container %s asks at port %s", c.Name, probe.HTTPGet.Port.StrVal)
			}
		}
	}
	for setting, port := range map[string]string{"GANTRY_LISTEN": "http", "GANTRY_PROBES": "probes", "GANTRY_TRANSFER_PROBES": "transfer-probes"} {
		if want := "0.0.0.0:" + strconv.Itoa(int(ports[port])); settings[setting] != want {
			t.Errorf("%s is %s, port %s is %s", setting, settings[setting], port, want)
		}
	}
	for _, rule := range all["NetworkPolicy/gantry"].(*networkingv1.NetworkPolicy).Spec.Ingress {
		for _, p := range rule.Ports {
			if p.Port.Type == intstr.String && ports[p.Port.StrVal] == 0 {
				t.Errorf("the network policy names port %s", p.Port.StrVal)
			}
		}
	}

	// The end of a pod leaves time for what is under way.
	drain, err := time.ParseDuration(settings["GANTRY_DRAIN"])
	if err != nil {
		t.Fatal(err)
	}
	pause := pod.Spec.Containers[0].Lifecycle.PreStop.Sleep.Seconds
	if got := time.Duration(*pod.Spec.TerminationGracePeriodSeconds) * time.Second; got < drain+time.Duration(pause)*time.Second+5*time.Second {
		t.Errorf("the pod has %s to end, and needs %s and %d s", got, drain, pause)
	}
	if address := pod.Spec.Containers[0].Env[1]; address.Name != "GANTRY_CLUSTER_ADDRESS" || !strings.Contains(address.Value, "."+set.Spec.ServiceName+":"+strconv.Itoa(int(ports["http"]))) {
		t.Errorf("other nodes are told %+v", address)
	}
}
