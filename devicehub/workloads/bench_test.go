package workloads_test

import (
	"fmt"
	"testing"

	"github.com/whimbrel-edge/whimbrel/devicehub/placement"
	"github.com/whimbrel-edge/whimbrel/devicehub/workloads"
	"github.com/whimbrel-edge/whimbrel/models"
)

// BenchmarkReconcile is what it costs to look at one Deployment whose pods are
// all well: that is done for each of them whenever a node comes or goes.
func BenchmarkReconcile(b *testing.B) {
	for _, nodes := range []int{10, 1000, 10_000} {
		b.Run(fmt.Sprintf("nodes=%d", nodes), func(b *testing.B) {
			o, err := models.DecodeObject([]byte(`{"kind":"Deployment","apiVersion":"apps/v1","metadata":{"name":"web"},"spec":{"replicas":10,"template":{"spec":{"containers":[{"name":"c","image":"v1",
				"env":[{"name":"A","value":"1"}],"ports":[{"containerPort":80}],"readinessProbe":{"httpGet":{"port":80}}}]}}}}`))
			if err != nil {
				b.Fatal(err)
			}
			in := workloads.Input{App: o.(*models.Deployment)}
			for i := range nodes {
				in.Cluster.Nodes = append(in.Cluster.Nodes, placement.Node{Name: fmt.Sprintf("node-%05d", i)})
			}
			in.Cluster.Load = map[string]int{}
			for range 2 { // the pods, then their states
				for _, o := range workloads.Reconcile(in).Put {
					switch o := o.(type) {
					case *models.Pod:
						in.Pods = append(in.Pods, workloads.Pod{Pod: o, Reachable: true, Status: models.PodStatus{Phase: models.PodRunning, Ready: true, Revision: 1}})
					case *models.ControllerRevision:
						in.Revisions = append(in.Revisions, o)
					}
				}
			}
			b.ReportAllocs()
			b.ResetTimer()
			for b.Loop() {
				if plan := workloads.Reconcile(in); len(plan.Put) > 0 {
					b.Fatal(plan.String())
				}
			}
		})
	}
}
