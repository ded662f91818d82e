package workloads

import (
	"fmt"
	"strings"
	"testing"

	"github.com/whimbrel-edge/whimbrel/models"
)

// What a pod tells one after the other, and the events that come of it.
func TestPodEvents(t *testing.T) {
	pod := &models.Pod{Spec: models.PodSpec{NodeName: "a"}}
	pod.Metadata.Name = "app-0"
	creating := func(message string) models.PodStatus {
		return models.PodStatus{Phase: models.PodPending, Reason: models.ReasonContainerCreating, Message: message}
	}
	ready := models.PodStatus{Phase: models.PodRunning, Ready: true, Revision: 1}
	updating := ready
	updating.Update = &models.PodUpdate{Revision: 2, Reason: models.ReasonContainerCreating, Message: "pulling hub:8080/app:2: 1 of 2 MB (waits: there is no link)"}
	updated := ready
	updated.Revision = 2
	for what, c := range map[string]struct {
		told []models.PodStatus
		want string
	}{
		"fetched and started": {[]models.PodStatus{creating(""), creating("pulling app:1"), creating("pulling app:1: 1 of 9 MB"), creating("pulling app:1: unpacking 9 MB"), creating(""), ready},
			"Normal Pulling image app:1 is being fetched to node a; Normal Pulled image app:1 is on node a; Normal Ready revision 1 is ready on node a"},
		"not to be had": {[]models.PodStatus{creating("pulling app:1"), {Phase: models.PodPending, Reason: models.ReasonErrImagePull, Message: "no"}, creating("pulling app:1: 1 of 2 MB")},
			"Warning ErrImagePull no; Normal Pulling image app:1 is being fetched to node a"},
		"the next revision": {[]models.PodStatus{ready, updating, updated},
			"Normal Pulling image hub:8080/app:2 is being fetched to node a; Normal Pulled image hub:8080/app:2 is on node a; Normal Ready revision 2 is ready on node a"},
		"two images": {[]models.PodStatus{creating("pulling app:1"), creating("pulling other:1")},
			"Normal Pulled image app:1 is on node a; Normal Pulling image other:1 is being fetched to node a"},
	} {
		var got []string
		for i := 1; i < len(c.told); i++ {
			for _, o := range podHappened(pod, &c.told[i-1], c.told[i]) {
				got = append(got, fmt.Sprintf("%s %s %s", o.Severity, o.Reason, o.Message))
			}
		}
		if text := strings.Join(got, "; "); text != c.want {
			t.Errorf("%s:\n%s, want\n%s", what, text, c.want)
		}
	}
}
