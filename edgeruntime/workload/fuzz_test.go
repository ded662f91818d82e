package workload

import (
	"log/slog"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/store"
)

// FuzzCompile reads items as a hub of another release, or a damaged store, could
// have them: what they lead to must be decided without a panic.
func FuzzCompile(f *testing.F) {
	f.Add([]byte(`{"spec":{"containers":[{"name":"a","image":"b","ports":[{"containerPort":1,"hostPort":2}],"volumeMounts":[{"name":"v","mountPath":"/x"}]}],
		"volumes":[{"name":"v","configMap":{"name":"m"}}],"access":[{"devices":"a=b","verbs":["read"]}]}}`), []byte(`{"data":{"a":"b"},"binaryData":{"c":"AAE="}}`))
	f.Add([]byte(`{"spec":{"containers":[{}]}}`), []byte(`{"data":{"k":"c2VjcmV0"}}`))
	f.Add([]byte(`[{"hash":"x","pod":{"spec":{"containers":[{"name":"a"}]}},"token":"t"}]`), []byte(`{"metadata":{"labels":{"a":"b"}}}`))
	f.Fuzz(func(t *testing.T, pod, other []byte) {
		w := compile([]store.Item{{Kind: kindPod, Namespace: "n", Name: "p", JSON: pod}, {Kind: kindConfigMap, Namespace: "n", Name: "m", JSON: other},
			{Kind: kindSecret, Namespace: "n", Name: "m", JSON: other}, {Kind: store.KindDevice, Namespace: "n", Name: "d", JSON: other}}, slog.New(slog.DiscardHandler))
		from := data{maps: map[string]map[string][]byte{"m": w.configMaps[key{"n", "m"}]}, secrets: map[string]map[string][]byte{"m": w.secrets[key{"n", "m"}]}}
		if p := w.pods[key{"n", "p"}]; p != nil {
			if _, err := hashOf(p, "life", Endpoints{}); err != nil {
				t.Error(err)
			}
			_, _ = claims(&p.Spec), ports(&p.Spec)
			for i := range p.Spec.Containers {
				_, _ = environment("n", &p.Spec.Containers[i], from, nil)
				_ = shares(&p.Spec.Containers[i])
			}
			v := View{Wanted: "h", Generations: []Generation{{Hash: "h", RestartPolicy: p.Spec.RestartPolicy, Claims: claims(&p.Spec)}}}
			for _, c := range p.Spec.Containers {
				v.Generations[0].Containers = append(v.Generations[0].Containers, Container{Name: c.Name})
			}
			_ = v.Decide(time.Time{})
		}
		if records, err := decodeRecords(pod); err == nil {
			for _, r := range records {
				_ = newGeneration(r).ready()
			}
		}
	})
}
