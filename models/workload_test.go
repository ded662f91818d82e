package models

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// TestWorkloadFiles decodes the files of testdata/workloads. A good one is taken,
// and what it is encoded to decodes to the same. A bad one is refused with
// exactly the errors that its comments name, by pointer and the beginning of the
// detail.
func TestWorkloadFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/workloads/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			objects, err := DecodeObjects(text)
			if strings.HasSuffix(file, ".bad.yaml") {
				checkRefusal(t, string(text), err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range objects {
				encoded, err := json.Marshal(o)
				if err != nil {
					t.Fatal(err)
				}
				again, err := DecodeObject(encoded)
				if err != nil {
					t.Fatalf("%s\n%v", encoded, err)
				}
				if !reflect.DeepEqual(o, again) {
					t.Errorf("%s decodes to another object", encoded)
				}
			}
		})
	}
}

func checkRefusal(t *testing.T, text string, err error) {
	t.Helper()
	var refused *Error
	if !errors.As(err, &refused) || refused.Kind != KindInvalid {
		t.Fatalf("got %v, want a refusal", err)
	}
	left := map[string]bool{}
	for _, f := range refused.Fields {
		left[f.Error()] = true
	}
	for line := range strings.Lines(text) {
		want, is := strings.CutPrefix(strings.TrimSpace(line), "# /")
		if !is {
			continue
		}
		found := ""
		for got := range left {
			if strings.HasPrefix(got, "/"+want) {
				found = got
			}
		}
		if found == "" {
			t.Errorf("nothing says /%s", want)
		}
		delete(left, found)
	}
	for got := range left {
		t.Errorf("unasked: %s", got)
	}
}

func TestDeploymentDefaults(t *testing.T) {
	o, err := DecodeObject([]byte(`{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"x"},"spec":{"template":{"metadata":{"labels":{"app":"x"}},
		"spec":{"containers":[{"name":"c","image":"a:latest","ports":[{"containerPort":80}],"readinessProbe":{"httpGet":{"port":80}}}]}}},"status":{"replicas":5}}`))
	if err != nil {
		t.Fatal(err)
	}
	d := o.(*Deployment)
	spec := d.Spec.Template.Spec
	got := []any{*d.Spec.Replicas, d.Spec.Selector.MatchLabels["app"], spec.RestartPolicy, *spec.TerminationGracePeriodSeconds, spec.Containers[0].ImagePullPolicy,
		spec.Containers[0].Ports[0].Protocol, *spec.Containers[0].ReadinessProbe, *spec.Containers[0].ReadinessProbe.HTTPGet, spec.Logs.MaxSize.Value(), spec.Logs.MaxFiles, d.Status == nil}
	want := []any{int32(1), "x", "Always", int64(30), "IfNotPresent", "TCP",
		Probe{HTTPGet: spec.Containers[0].ReadinessProbe.HTTPGet, TimeoutSeconds: 1, PeriodSeconds: 10, SuccessThreshold: 1, FailureThreshold: 3},
		HTTPGet{Path: "/", Port: PortRef{Number: 80}, Scheme: "HTTP"}, int64(10 << 20), int32(3), true}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestTemplateIsBounded(t *testing.T) {
	doc := func(n int) []byte {
		return []byte(`{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"x"},"spec":{"template":{"spec":{"containers":[{"name":"c","image":"a","env":[{"name":"A","value":"` +
			strings.Repeat("x", n) + `"}]}]}}}}`)
	}
	if _, err := DecodeObject(doc(MaxTemplateBytes - 1000)); err != nil {
		t.Error(err)
	}
	var refused *Error
	if _, err := DecodeObject(doc(MaxTemplateBytes)); !errors.As(err, &refused) || len(refused.Fields) != 1 || refused.Fields[0].Pointer != "/spec/template" {
		t.Error(err)
	}
}

func TestQuantity(t *testing.T) {
	for text, milli := range map[string]int64{
		"0": 0, "1": 1000, "250m": 250, "0.5": 500, ".5": 500, "1.": 1000, "64Mi": 64 << 20 * 1000, "1G": 1e12, "1k": 1e6, "1e3": 1e6, "2E-3": 2,
		"1.5Gi": 3 << 29 * 1000, "0.0001": 1, "1Ei": -1, "9Pi": -1, "": -1, "-1": -1, "1Mb": -1, "1e400": -1, "Mi": -1, "1 Mi": -1, "0x10": -1,
	} {
		q, err := ParseQuantity(text)
		if milli < 0 {
			if err == nil {
				t.Errorf("%q is taken as %d", text, q.Milli())
			}
		} else if err != nil || q.Milli() != milli || q.String() != text {
			t.Errorf("%q: got %d (%s), %v; want %d", text, q.Milli(), q, err, milli)
		}
	}
	for text, whole := range map[string]int64{"1": 1, "1001m": 2, "1m": 1, "0": 0, "64Mi": 64 << 20} {
		if q, err := ParseQuantity(text); err != nil || q.Value() != whole {
			t.Errorf("%q: got %d, %v; want %d", text, q.Value(), err, whole)
		}
	}
}

func FuzzQuantity(f *testing.F) {
	f.Add("64Mi")
	f.Add("1e3")
	f.Fuzz(func(t *testing.T, text string) {
		q, err := ParseQuantity(text)
		if err != nil {
			return
		}
		again, err := ParseQuantity(q.String())
		if err != nil || again != q || q.Milli() < 0 || q.Value() < q.Milli()/1000 {
			t.Errorf("%q: %+v, then %+v, %v", text, q, again, err)
		}
	})
}

func TestDeviceChoice(t *testing.T) {
	labels := map[string]string{"area": "a"}
	for text, want := range map[string]bool{`"area=a"`: true, `"area=b"`: false, `["x","boiler-1"]`: true, `["x"]`: false, `[]`: false, `""`: false} {
		var c DeviceChoice
		if err := json.Unmarshal([]byte(text), &c); err != nil || c.Matches("boiler-1", labels) != want {
			t.Errorf("%s: %v, want %v", text, err, want)
		}
	}
	if (DeviceChoice{Selector: "area=b"}).Matches("boiler-1", labels) || (DeviceChoice{Selector: "((("}).Matches("boiler-1", labels) {
		t.Error("a selector that was never compiled matches everything")
	}
	var blank DeviceChoice
	if err := json.Unmarshal([]byte(`" "`), &blank); err == nil {
		t.Error("a blank selector is taken")
	}
}

func TestPodSpecTells(t *testing.T) {
	objects, err := DecodeObjects(mustRead(t, "testdata/workloads/full.good.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	spec := &objects[0].(*Deployment).Spec.Template.Spec
	configMaps, secrets := spec.References()
	if want := map[string]bool{"settings": true, "limits": true}; !reflect.DeepEqual(configMaps, want) {
		t.Errorf("config maps %v, want %v", configMaps, want)
	}
	if want := map[string]bool{"erp": true, "keys": true}; !reflect.DeepEqual(secrets, want) {
		t.Errorf("secrets %v, want %v", secrets, want)
	}
	spec.HostNetwork = true
	if got, want := spec.NeedsHost(), []string{"/hostNetwork", "/volumes/1/hostPath"}; !reflect.DeepEqual(got, want) {
		t.Errorf("needs %v of the host, want %v", got, want)
	}
}

func mustRead(t *testing.T, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestInstead(t *testing.T) {
	for _, kind := range []string{"ReplicaSet", "Job"} {
		_, err := DecodeObject([]byte("apiVersion: apps/v1\nkind: " + kind + "\nmetadata: {name: a}\nspec: {anything: 1}\n"))
		if KindOf(err) != KindInvalid || !strings.Contains(err.Error(), "/kind: "+kind+" is not supported; use a Deployment") {
			t.Errorf("%s: %v", kind, err)
		}
	}
	for _, k := range Kinds {
		if Instead(k.Kind) != "" || Instead(k.Plural) != "" {
			t.Errorf("there is a kind %s", k.Kind)
		}
	}
}
