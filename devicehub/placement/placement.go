// Package placement chooses nodes for the pods of an app. It is a function of
// what is known: no clock, no I/O.
//
// A pod stays where it is as long as its node fits, connected or not: an app is
// not moved because a link is down. It moves when its node is gone or no longer
// fits what the app's template asks for. New pods go to connected nodes, those
// with the fewest pods of the app first, then with the fewest of all. Pods that have
// a home are there or nowhere.
package placement

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/whimbrel-edge/whimbrel/models"
)

// Node is a place where pods may run.
type Node struct {
	Name   string
	Labels map[string]string
	// CannotRun is why the node cannot run pods at all, "" when it can or it is
	// not known.
	CannotRun string
	// Trouble is why the node is to get no new pods at present, "" when it is
	// well. What is on it stays, and what can run nowhere else still goes there.
	Trouble string
}

// Request is the pods of one app that need a place.
type Request struct {
	App   string          // its namespace and name
	Spec  *models.PodSpec // the template's
	Slots int             // pods 0 to Slots-1
	Bound map[int]string  // the node of each pod that has one
	// Home is the node of each pod that may be there and nowhere else as long as that
	// node exists, connected or not.
	Home map[int]string
	// NearNode is the node that serves Spec.NearDevice; NearTrouble is why there
	// is none.
	NearNode, NearTrouble string
}

// Cluster is what else there is.
type Cluster struct {
	Nodes []Node                        // in the order of their names
	Load  map[string]int                // pods on each node, the app's own included
	Ports map[string]map[HostPort]Owner // ports of each node that are taken
}

// Owner is who has a port.
type Owner struct{ App, Pod string }

// Place is where a pod is to run: a node, or why there is none.
type Place struct {
	Node    string
	Reason  string // models.ReasonUnschedulable or models.ReasonNotSupportedByNode
	Message string
}

// HostPort is a port of a node that only one can listen on.
type HostPort struct {
	IP       string // "" for every address
	Port     int32
	Protocol string
}

func (p HostPort) String() string { return fmt.Sprintf("%d/%s", p.Port, p.Protocol) }

// overlaps reports whether two cannot listen at once.
func (p HostPort) overlaps(q HostPort) bool {
	return p.Port == q.Port && p.Protocol == q.Protocol && (p.IP == q.IP || p.IP == "" || q.IP == "")
}

// HostPorts returns the ports of its node that a pod takes.
func HostPorts(s *models.PodSpec) (out []HostPort) {
	for _, c := range s.Containers {
		for _, p := range c.Ports {
			port := p.HostPort
			if s.HostNetwork {
				port = p.ContainerPort
			}
			if port == 0 {
				continue
			}
			ip := p.HostIP
			if a, err := netip.ParseAddr(ip); err == nil && a.IsUnspecified() {
				ip = ""
			}
			out = append(out, HostPort{ip, port, p.Protocol})
		}
	}
	return out
}

// Choose returns a place for each pod of the request.
func Choose(r Request, c Cluster) []Place {
	p := planner{Request: r, Cluster: c, ports: HostPorts(r.Spec), own: map[string]int{}, was: map[string]int{}}
	for _, n := range r.Bound {
		p.was[n]++
	}
	out := make([]Place, r.Slots)
	for slot := range out {
		if n := p.node(r.Home[slot]); n != nil {
			out[slot] = p.only(n)
		}
	}
	for slot := range out {
		n := p.node(r.Bound[slot])
		if out[slot] != (Place{}) {
			continue
		}
		if n == nil || p.unfit(n, true) != "" || p.portTaken(n) != "" {
			continue
		}
		out[slot].Node = n.Name
		p.take(n)
	}
	for slot := range out {
		if out[slot] != (Place{}) {
			continue
		}
		if n := p.best(); n != nil {
			out[slot].Node = n.Name
			p.take(n)
		} else {
			out[slot] = p.explain()
		}
	}
	return out
}

type planner struct {
	Request
	Cluster
	ports []HostPort
	own   map[string]int // pods of the app on each node
	was   map[string]int // and before
}

func (p *planner) take(n *Node) { p.own[n.Name]++ }

// only gives a pod the one node that it may be on, or says why it cannot be there.
func (p *planner) only(n *Node) Place {
	why := p.unfit(n, true)
	place := Place{Reason: models.ReasonUnschedulable}
	if why != "" && why == n.CannotRun {
		place.Reason = models.ReasonNotSupportedByNode
	}
	if why == "" {
		why = p.portTaken(n)
	}
	if why != "" {
		place.Message = "it is for node " + n.Name + ", which " + why
		return place
	}
	p.take(n)
	return Place{Node: n.Name}
}

// Selects reports whether a template's nodeSelector chooses a node with these labels.
func Selects(s *models.PodSpec, labels map[string]string) bool {
	for k, v := range s.NodeSelector {
		if got, has := labels[k]; !has || got != v {
			return false
		}
	}
	return true
}

// load is how many pods there are on a node.
func (p *planner) load(n *Node) int { return p.Load[n.Name] - p.was[n.Name] + p.own[n.Name] }

func (c *Cluster) node(name string) *Node {
	i, ok := slices.BinarySearchFunc(c.Nodes, name, func(n Node, name string) int { return strings.Compare(n.Name, name) })
	if !ok {
		return nil
	}
	return &c.Nodes[i]
}

// pinned reports whether the template leaves no choice: the pod then waits for
// its node.
func (p *planner) pinned() bool { return p.Spec.NodeName != "" || p.Spec.NearDevice != "" }

// unfit returns why a node is not what the template asks for, "" when it is. A
// pod that is there already stays while its device is nowhere.
func (p *planner) unfit(n *Node, there bool) string {
	if want := p.Spec.NodeName; want != "" && want != n.Name {
		return "is not " + want + ", which spec.nodeName asks for"
	}
	for _, k := range slices.Sorted(maps.Keys(p.Spec.NodeSelector)) {
		want := p.Spec.NodeSelector[k]
		if got, has := n.Labels[k]; !has {
			return fmt.Sprintf("has no label %s=%s", k, want)
		} else if got != want {
			return fmt.Sprintf("has the label %s=%s, not %s", k, got, want)
		}
	}
	if p.Spec.NearDevice != "" && p.NearNode != n.Name && (p.NearNode != "" || !there) {
		if p.NearNode == "" {
			return p.NearTrouble
		}
		return "does not serve device " + p.Spec.NearDevice + "; " + p.NearNode + " does"
	}
	return n.CannotRun
}

// portTaken returns why the pod's host ports are not to be had on a node.
func (p *planner) portTaken(n *Node) string {
	if len(p.ports) > 0 && p.own[n.Name] > 0 {
		return fmt.Sprintf("port %s is taken by another pod of the app", p.ports[0])
	}
	for _, want := range p.ports {
		for _, have := range slices.SortedFunc(maps.Keys(p.Ports[n.Name]), func(a, b HostPort) int { return cmp.Compare(a.Port, b.Port) }) {
			if owner := p.Ports[n.Name][have]; owner.App != p.App && want.overlaps(have) {
				return fmt.Sprintf("port %s is taken by pod %s", want, owner.Pod)
			}
		}
	}
	return ""
}

// verdict returns why a node cannot have one more pod of the app now.
func (p *planner) verdict(n *Node) string {
	if why := p.unfit(n, false); why != "" {
		return why
	}
	if !p.pinned() && n.Trouble != "" {
		return n.Trouble
	}
	return p.portTaken(n)
}

func (p *planner) best() (best *Node) {
	better := func(a, b *Node) bool {
		return cmp.Or(cmp.Compare(p.own[a.Name], p.own[b.Name]), cmp.Compare(p.load(a), p.load(b))) < 0
	}
	for i := range p.Nodes {
		n := &p.Nodes[i]
		if (best == nil || better(n, best)) && p.verdict(n) == "" {
			best = n
		}
	}
	return best
}

// namesShown bounds the nodes that a message names with one reason.
const namesShown = 10

// explain says for each node why it is not chosen, those with the same reason
// together.
func (p *planner) explain() Place {
	if p.Spec.NearDevice != "" && p.NearNode == "" {
		return Place{Reason: models.ReasonUnschedulable, Message: p.NearTrouble}
	}
	if len(p.Nodes) == 0 {
		return Place{Reason: models.ReasonUnschedulable, Message: "there is no node"}
	}
	reasons, order := map[string][]string{}, []string{}
	fit, able := 0, 0
	for i := range p.Nodes {
		n := &p.Nodes[i]
		why := p.verdict(n)
		if reasons[why] == nil {
			order = append(order, why)
		}
		reasons[why] = append(reasons[why], n.Name)
		if why == n.CannotRun {
			fit++
		} else if plain := (&Node{Name: n.Name, Labels: n.Labels}); p.unfit(plain, false) == "" {
			able++
		}
	}
	place := Place{Reason: models.ReasonUnschedulable}
	if fit > 0 && able == 0 { // every node that the template asks for is too old
		place.Reason = models.ReasonNotSupportedByNode
	}
	if name := p.Spec.NodeName; name != "" && p.node(name) == nil {
		place.Message = "node " + name + " does not exist"
		return place
	}
	var parts []string
	for _, why := range order {
		names := reasons[why]
		more := ""
		if len(names) > namesShown {
			more = fmt.Sprintf(" and %d more", len(names)-namesShown)
			names = names[:namesShown]
		}
		parts = append(parts, strings.Join(names, ", ")+more+" "+why)
	}
	place.Message = fmt.Sprintf("none of %d nodes can take it: %s", len(p.Nodes), strings.Join(parts, "; "))
	if len(p.Nodes) == 1 {
		place.Message = "node " + parts[0]
	}
	return place
}
