package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
)

func workload(t *testing.T, text string) models.Object {
	t.Helper()
	o, err := models.DecodeObject([]byte("---\n" + text))
	if err != nil {
		t.Fatal(err)
	}
	o.Meta().CreationTimestamp = before(time.Hour)
	return o
}

// Rows of apps and pods in each state that they can be in, and pods described.
func TestWorkloadTables(t *testing.T) {
	app := func(name string, conditions ...models.Condition) models.Object {
		d := workload(t, `{kind: Deployment, apiVersion: apps/v1, metadata: {name: `+name+`}, spec: {replicas: 3, template: {spec: {containers: [{name: c, image: "web:v2"}, {name: d, image: side}]}}}}`).(*models.Deployment)
		if conditions != nil {
			d.Status = &models.DeploymentStatus{ReadyReplicas: 2, UpdatedReplicas: 1, Conditions: conditions}
		}
		return d
	}
	condition := func(typ, status, reason string) models.Condition {
		return models.Condition{Type: typ, Status: status, Reason: reason}
	}
	pod := func(name string, s *models.PodStatus) *models.Pod {
		p := workload(t, `{kind: Pod, apiVersion: v1, metadata: {name: `+name+`}, spec: {nodeName: gateway-1, containers: [{name: c, image: "web:v2"}, {name: d, image: side}]}}`).(*models.Pod)
		p.Metadata.OwnerReferences = []models.OwnerReference{{Kind: "Deployment", Name: "web"}}
		p.Metadata.Annotations = map[string]string{models.AnnotationRevision: "2"}
		p.Status = s
		return p
	}
	up := models.ContainerStatus{Name: "c", Image: "web:v1", ImageID: "sha256:abc", Ready: true, Started: true, State: models.ContainerState{Running: &models.ContainerRunning{StartedAt: *before(time.Minute)}}}
	down := models.ContainerStatus{Name: "d", Image: "side", RestartCount: 4, State: models.ContainerState{Waiting: &models.ContainerWaiting{Reason: models.ReasonCrashLoopBackOff, Message: "back-off 40s"}},
		LastState: models.ContainerState{Terminated: &models.ContainerTerminated{ExitCode: 137, Signal: 9, Reason: models.ReasonOOMKilled, FinishedAt: before(5 * time.Second)}}}
	replaced := pod("web-2", &models.PodStatus{Phase: models.PodRunning, Reason: models.ReasonCrashLoopBackOff, Message: "container d: back-off 40s", Revision: 1, RestartCount: 4, PodIP: "172.30.0.2",
		StartTime: before(time.Minute), ReportedAt: before(time.Second), ContainerStatuses: []models.ContainerStatus{up, down},
		Update: &models.PodUpdate{Revision: 2, Failed: true, Reason: models.ReasonImagePullBackOff, Message: "web:v2 is nowhere",
			ContainerStatuses: []models.ContainerStatus{{Name: "c", Image: "web:v2", State: models.ContainerState{Waiting: &models.ContainerWaiting{Reason: models.ReasonImagePullBackOff}}}}}})

	daemons := workload(t, `{kind: DaemonSet, apiVersion: apps/v1, metadata: {name: agent}, spec: {template: {spec: {nodeSelector: {site: north}, containers: [{name: c, image: "web:v2"}]}}}}`).(*models.DaemonSet)
	daemons.SetStanding(models.Standing{Revision: 2, Wanted: 3, Made: 3, Ready: 2, Available: 1, Updated: 1, Conditions: []models.Condition{condition("Progressing", "True", models.ReasonRollingOut)}})
	stateful := workload(t, `{kind: StatefulSet, apiVersion: apps/v1, metadata: {name: store}, spec: {replicas: 3, template: {spec: {containers: [{name: c, image: "web:v2"}]}}}}`).(*models.StatefulSet)
	stateful.SetStanding(models.Standing{Revision: 2, Wanted: 3, Made: 3, Ready: 3, Updated: 3, Conditions: []models.Condition{condition("Progressing", "True", models.ReasonRolloutComplete), condition("Available", "True", models.ReasonAllPodsReady)}})

	var b strings.Builder
	for _, one := range []struct {
		kind    string
		objects []models.Object
	}{
		{"Deployment", []models.Object{
			app("new"),
			app("well", condition("Available", "True", models.ReasonAllPodsReady), condition("Progressing", "True", models.ReasonRolloutComplete)),
			app("ill", condition("Available", "False", models.ReasonPodsNotReady), condition("Progressing", "True", models.ReasonRolloutComplete)),
			app("stuck", condition("Available", "True", models.ReasonAllPodsReady), condition("Progressing", "False", models.ReasonRolloutFailed)),
		}},
		{"DaemonSet", []models.Object{
			workload(t, `{kind: DaemonSet, apiVersion: apps/v1, metadata: {name: new}, spec: {template: {spec: {containers: [{name: c, image: "web:v2"}]}}}}`),
			daemons,
		}},
		{"StatefulSet", []models.Object{
			workload(t, `{kind: StatefulSet, apiVersion: apps/v1, metadata: {name: new}, spec: {replicas: 3, template: {spec: {containers: [{name: c, image: "web:v2"}]}}}}`),
			stateful,
		}},
		{"Pod", []models.Object{
			pod("web-0", nil),
			pod("web-1", &models.PodStatus{Phase: models.PodRunning, Ready: true, Revision: 2, ContainerStatuses: []models.ContainerStatus{up}}),
			replaced,
			pod("web-3", &models.PodStatus{Phase: models.PodUnknown, Reason: models.ReasonNodeLost, Revision: 2, ContainerStatuses: []models.ContainerStatus{up}}),
			pod("web-4", &models.PodStatus{Phase: models.PodSucceeded, Reason: models.ReasonCompleted, Revision: 2}),
		}},
		{"Service", []models.Object{workload(t, `{kind: Service, apiVersion: v1, metadata: {name: web}, spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: web}, {name: admin, port: 81}]}}`)}},
		{"ConfigMap", []models.Object{workload(t, `{kind: ConfigMap, apiVersion: v1, metadata: {name: settings}, data: {a: x}, binaryData: {b: AA==}}`)}},
	} {
		info, _ := models.KindByName(one.kind)
		for _, format := range []string{"", "wide"} {
			table := objectTable(ref{info: info})
			for _, o := range one.objects {
				table.row(objectRow(o, noon)...)
			}
			(&getFlags{output: output{format: format}}).trim(table, ref{info: info})
			b.WriteString("== " + one.kind + " " + format + "\n" + render(table, 0))
		}
	}
	var described bytes.Buffer
	d := description{w: &described, now: noon}
	if err := d.pod(replaced); err != nil {
		t.Fatal(err)
	}
	b.WriteString("== described\n" + described.String())
	golden(t, "testdata/workloads.golden", b.String())
}

func TestChoosePod(t *testing.T) {
	pod := func(name string, s *models.PodStatus) *models.Pod {
		return &models.Pod{Metadata: models.ObjectMeta{Name: name}, Status: s}
	}
	unknown, pending := pod("a", nil), pod("b", &models.PodStatus{Phase: models.PodPending})
	running, ready := pod("c", &models.PodStatus{Phase: models.PodRunning}), pod("d", &models.PodStatus{Phase: models.PodRunning, Ready: true})
	for _, c := range []struct {
		pods []*models.Pod
		want string
	}{{[]*models.Pod{unknown, pending, running, ready}, "d"}, {[]*models.Pod{unknown, pending, running}, "c"}, {[]*models.Pod{unknown, pending}, "a"}, {[]*models.Pod{pending}, "b"}} {
		var says strings.Builder
		a := app{name: "x", pods: c.pods}
		if got := a.one(&says); got.Metadata.Name != c.want || (says.Len() > 0) != (len(c.pods) > 1) {
			t.Errorf("chose %s, want %s, and said %q", got.Metadata.Name, c.want, says.String())
		}
	}
}

func TestOnlyCounts(t *testing.T) {
	const pulling = "revision 1: 0 of 2 pods are up; next pod big-0 on node gw-1: ContainerCreating: pulling test/big:1"
	for _, tt := range []struct {
		a, b string
		only bool
	}{
		{pulling + ": 49 of 403 MB", pulling + ": 152 of 403 MB", true},
		{pulling, pulling + ": 1 of 403 MB", false},
		{pulling + ": 403 of 403 MB", pulling + ": unpacking 403 MB", false},
		{"revision 1: 0 of 2 pods are up", "revision 1: 1 of 2 pods are up", false},
		{"", "all pods are at revision 1", false},
	} {
		if got := onlyCounts(tt.a, tt.b); got != tt.only {
			t.Errorf("%q and %q differ by counts only: %v", tt.a, tt.b, got)
		}
	}
}
