package models

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

// problems gathers what is wrong, each at a pointer below at.
type problems struct {
	at   string
	errs *[]FieldError
}

func (p problems) in(steps ...any) problems {
	for _, s := range steps {
		p.at += "/" + escapePointer(fmt.Sprint(s))
	}
	return p
}

func (p problems) say(format string, args ...any) {
	*p.errs = append(*p.errs, FieldError{p.at, fmt.Sprintf(format, args...)})
}

func (p problems) check(msg string) {
	if msg != "" {
		p.say("%s", msg)
	}
}

func (p problems) oneOf(given string, allowed ...string) {
	if slices.Contains(allowed, given) {
		return
	}
	if len(allowed) > 1 && allowed[0] == "" {
		allowed = allowed[1:]
	}
	p.say("must be %s, got %s", strings.Join(allowed, ", "), quoteShort(given))
}

// within checks a number; a required one of 0 is said to be missing.
func (p problems) within(n, least, most int64) {
	switch {
	case n == 0 && least > 0:
		p.say("is required: %d to %d", least, most)
	case n < least || n > most:
		p.say("must be %d to %d, got %d", least, most, n)
	}
}

// name checks a required name that must not come twice.
func (p problems) name(name string, rule func(string) string, seen map[string]bool) {
	switch {
	case name == "":
		p.say("is required")
	case rule(name) != "":
		p.say("%s", rule(name))
	case seen[name]:
		p.say("%s comes twice", quoteShort(name))
	}
	if seen != nil {
		seen[name] = true
	}
}

// exactlyOne checks which of some fields are given, and reports whether one is.
func (p problems) exactlyOne(given map[string]bool) bool {
	var names, all []string
	for _, f := range sortedKeys(given) {
		all = append(all, f)
		if given[f] {
			names = append(names, f)
		}
	}
	if len(names) != 1 {
		got := "none"
		if len(names) > 0 {
			got = strings.Join(names, " and ")
		}
		p.say("must have exactly one of %s, has %s", strings.Join(all, ", "), got)
	}
	return len(names) == 1
}

// Bounds of a pod, far above what apps have.
const (
	maxContainers  = 20
	maxPodList     = 200
	maxImageLength = 512
)

func (s *PodSpec) validate(at string) (errs []FieldError) {
	p := problems{at, &errs}
	if s.NodeName != "" {
		p.in("nodeName").check(CheckSubdomain(s.NodeName))
	}
	errs = append(errs, validateLabels(at+"/nodeSelector", s.NodeSelector)...)
	if s.NearDevice != "" {
		p.in("nearDevice").check(CheckLabelName(s.NearDevice))
	}
	p.in("restartPolicy").oneOf(s.RestartPolicy, RestartAlways, RestartOnFailure, RestartNever)
	p.in("terminationGracePeriodSeconds").within(*s.TerminationGracePeriodSeconds, 0, 3600)
	volumes := map[string]bool{}
	for i := range s.Volumes {
		s.Volumes[i].validate(p.in("volumes", i), volumes)
	}
	if n := len(s.Containers); n == 0 || n > maxContainers {
		p.in("containers").say("must be 1 to %d, are %d", maxContainers, n)
	}
	names, ports := map[string]bool{}, map[string]string{}
	for i := range s.Containers {
		c, p := &s.Containers[i], p.in("containers", i)
		p.in("name").name(c.Name, CheckLabelName, names)
		c.validate(p, volumes)
		s.validatePorts(c, p.in("ports"), ports)
	}
	for i := range s.Access {
		s.Access[i].validate(p.in("access", i))
	}
	p.in("logs", "maxFiles").within(int64(s.Logs.MaxFiles), 1, 100)
	if n := s.Logs.MaxSize.Value(); n < 4<<10 || n > 10<<30 {
		p.in("logs", "maxSize").say("must be 4Ki to 10Gi, got %s", s.Logs.MaxSize)
	}
	return errs
}

// validatePorts checks a container's ports. The containers of a pod share one
// network, so a port can be only one's.
func (s *PodSpec) validatePorts(c *Container, p problems, taken map[string]string) {
	names := map[string]bool{}
	for j, port := range c.Ports {
		p := p.in(j)
		if port.Name != "" {
			p.in("name").name(port.Name, checkPortName, names)
		}
		p.in("containerPort").within(int64(port.ContainerPort), 1, 65535)
		p.in("hostPort").within(int64(port.HostPort), 0, 65535)
		if s.HostNetwork && port.HostPort != 0 && port.HostPort != port.ContainerPort {
			p.in("hostPort").say("must be left out or equal to containerPort with hostNetwork")
		}
		if port.HostIP != "" {
			p.in("hostIP").check(checkIP(port.HostIP))
			if port.HostPort == 0 {
				p.in("hostIP").say("needs a hostPort")
			}
		}
		p.in("protocol").oneOf(port.Protocol, "TCP", "UDP")
		key := fmt.Sprintf("%d/%s", port.ContainerPort, port.Protocol)
		if other, twice := taken[key]; twice {
			p.in("containerPort").say("%s is %s's already; the containers of a pod share one network", key, other)
		}
		taken[key] = c.Name
		if port.HostPort != 0 {
			key := fmt.Sprintf("host %s:%d/%s", port.HostIP, port.HostPort, port.Protocol)
			if _, twice := taken[key]; twice {
				p.in("hostPort").say("%d comes twice", port.HostPort)
			}
			taken[key] = c.Name
		}
	}
}

var (
	portName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?$`)
	envName  = regexp.MustCompile(`^[-._a-zA-Z][-._a-zA-Z0-9]{0,254}$`)
	// imageName leaves the details to the engine; it keeps out what could never be one.
	imageName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._:/@\[\]-]*$`)
)

func checkPortName(s string) string {
	if !portName.MatchString(s) || strings.Trim(s, "0123456789-") == "" {
		return "must be at most 15 of a-z, 0-9 and '-', with a letter, got " + quoteShort(s)
	}
	return ""
}

func checkEnvName(s string) string {
	switch {
	case !envName.MatchString(s):
		return "must be letters, digits, '_', '-' and '.', not starting with a digit, got " + quoteShort(s)
	case strings.HasPrefix(s, "WHIMBREL_"):
		return "must not start with WHIMBREL_, which the edge sets"
	}
	return ""
}

func checkAbsolute(s string) string {
	if !strings.HasPrefix(s, "/") || strings.ContainsAny(s, ":\x00") || path.Clean(s) != strings.TrimSuffix(s, "/") && s != "/" || len(s) > 4096 {
		return "must be an absolute path without '..', '//' and ':', got " + quoteShort(s)
	}
	return ""
}

func checkRelative(s string) string {
	if s == "" || strings.HasPrefix(s, "/") || path.Clean(s) != s || s == "." || s == ".." || strings.HasPrefix(s, "../") || strings.ContainsAny(s, ":\x00") || len(s) > 4096 {
		return "must be a path below the volume, without '..', got " + quoteShort(s)
	}
	return ""
}

func (c *Container) validate(p problems, volumes map[string]bool) {
	switch {
	case c.Image == "":
		p.in("image").say("is required")
	case len(c.Image) > maxImageLength || !imageName.MatchString(c.Image):
		p.in("image").say("must be an image's name, got %s", quoteShort(c.Image))
	}
	p.in("imagePullPolicy").oneOf(c.ImagePullPolicy, PullAlways, PullIfNotPresent, PullNever)
	if len(c.Env) > maxPodList || len(c.EnvFrom) > maxPodList || len(c.Ports) > maxPodList || len(c.VolumeMounts) > maxPodList {
		p.say("env, envFrom, ports and volumeMounts may have at most %d entries each", maxPodList)
		return
	}
	for i, e := range c.Env {
		p := p.in("env", i)
		p.in("name").name(e.Name, checkEnvName, nil)
		if strings.ContainsRune(e.Value, 0) {
			p.in("value").say("must not contain NUL")
		}
		if e.ValueFrom == nil {
			continue
		}
		if e.Value != "" {
			p.say("must not have both value and valueFrom")
		}
		p = p.in("valueFrom")
		p.exactlyOne(map[string]bool{"configMapKeyRef": e.ValueFrom.ConfigMapKeyRef != nil, "secretKeyRef": e.ValueFrom.SecretKeyRef != nil})
		e.ValueFrom.ConfigMapKeyRef.validate(p.in("configMapKeyRef"))
		e.ValueFrom.SecretKeyRef.validate(p.in("secretKeyRef"))
	}
	for i, e := range c.EnvFrom {
		p := p.in("envFrom", i)
		if e.Prefix != "" {
			p.in("prefix").check(checkEnvName(e.Prefix))
		}
		p.exactlyOne(map[string]bool{"configMapRef": e.ConfigMapRef != nil, "secretRef": e.SecretRef != nil})
		for field, ref := range map[string]*ObjectRef{"configMapRef": e.ConfigMapRef, "secretRef": e.SecretRef} {
			if ref != nil {
				p.in(field, "name").name(ref.Name, CheckSubdomain, nil)
			}
		}
	}
	c.Resources.validate(p.in("resources"))
	mounted := map[string]bool{}
	for i, m := range c.VolumeMounts {
		p := p.in("volumeMounts", i)
		if !volumes[m.Name] {
			p.in("name").say("no volume is called %s", quoteShort(m.Name))
		}
		p.in("mountPath").name(strings.TrimSuffix(m.MountPath, "/"), checkAbsolute, mounted)
		if m.SubPath != "" {
			p.in("subPath").check(checkRelative(m.SubPath))
		}
	}
	c.LivenessProbe.validate(p.in("livenessProbe"), c)
	c.ReadinessProbe.validate(p.in("readinessProbe"), c)
	c.StartupProbe.validate(p.in("startupProbe"), c)
	for _, probe := range []struct {
		field string
		p     *Probe
	}{{"livenessProbe", c.LivenessProbe}, {"startupProbe", c.StartupProbe}} {
		if probe.p != nil && probe.p.SuccessThreshold != 1 {
			p.in(probe.field, "successThreshold").say("must be 1: only a readinessProbe can ask for more")
		}
	}
}

func (r *KeyRef) validate(p problems) {
	if r == nil {
		return
	}
	p.in("name").name(r.Name, CheckSubdomain, nil)
	p.in("key").name(r.Key, checkConfigKey, nil)
}

func (r ResourceRequirements) validate(p problems) {
	for _, q := range []struct {
		field          string
		limit, request Quantity
	}{{"cpu", r.Limits.CPU, r.Requests.CPU}, {"memory", r.Limits.Memory, r.Requests.Memory}} {
		if !q.limit.IsZero() && !q.request.IsZero() && q.request.Milli() > q.limit.Milli() {
			p.in("requests", q.field).say("must not be more than the limit %s, got %s", q.limit, q.request)
		}
		if !q.limit.IsZero() && q.limit.Milli() == 0 {
			p.in("limits", q.field).say("must be more than 0")
		}
	}
	// Less and the engine refuses, or nothing can start.
	if l := r.Limits.Memory; !l.IsZero() && l.Value() < 6<<20 && l.Value() > 0 {
		p.in("limits", "memory").say("must be at least 6Mi, got %s", l)
	}
	if l := r.Limits.CPU; !l.IsZero() && l.Milli() < 10 && l.Milli() > 0 {
		p.in("limits", "cpu").say("must be at least 10m, got %s", l)
	}
}

func (b *Probe) validate(p problems, c *Container) {
	if b == nil {
		return
	}
	p.exactlyOne(map[string]bool{"httpGet": b.HTTPGet != nil, "tcpSocket": b.TCPSocket != nil, "exec": b.Exec != nil})
	if g := b.HTTPGet; g != nil {
		p := p.in("httpGet")
		g.Port.validate(p.in("port"), c)
		p.in("scheme").oneOf(g.Scheme, "HTTP", "HTTPS")
		if !strings.HasPrefix(g.Path, "/") || strings.ContainsAny(g.Path, " \r\n\x00") {
			p.in("path").say("must start with / and have no blanks, got %s", quoteShort(g.Path))
		}
		for i, h := range g.HTTPHeaders {
			if !headerName.MatchString(h.Name) {
				p.in("httpHeaders", i, "name").say("must be a header's name, got %s", quoteShort(h.Name))
			}
			if strings.ContainsAny(h.Value, "\r\n\x00") {
				p.in("httpHeaders", i, "value").say("must be one line")
			}
		}
	}
	if b.TCPSocket != nil {
		b.TCPSocket.Port.validate(p.in("tcpSocket", "port"), c)
	}
	if b.Exec != nil && len(b.Exec.Command) == 0 {
		p.in("exec", "command").say("is required")
	}
	p.in("initialDelaySeconds").within(int64(b.InitialDelaySeconds), 0, 86400)
	p.in("timeoutSeconds").within(int64(b.TimeoutSeconds), 1, 3600)
	p.in("periodSeconds").within(int64(b.PeriodSeconds), 1, 86400)
	p.in("successThreshold").within(int64(b.SuccessThreshold), 1, 1000)
	p.in("failureThreshold").within(int64(b.FailureThreshold), 1, 1000)
}

var headerName = regexp.MustCompile("^[-!#$%&'*+.^_`|~0-9A-Za-z]{1,256}$")

func (r PortRef) validate(p problems, c *Container) {
	if r.Name == "" {
		p.within(int64(r.Number), 1, 65535)
		return
	}
	for _, port := range c.Ports {
		if port.Name == r.Name && port.Protocol == "TCP" {
			return
		}
	}
	p.say("no TCP port of the container is called %s", quoteShort(r.Name))
}

func (v *Volume) validate(p problems, seen map[string]bool) {
	p.in("name").name(v.Name, CheckLabelName, seen)
	p.exactlyOne(map[string]bool{"hostPath": v.HostPath != nil, "emptyDir": v.EmptyDir != nil, "configMap": v.ConfigMap != nil, "secret": v.Secret != nil})
	if h := v.HostPath; h != nil {
		p.in("hostPath", "path").name(h.Path, checkAbsolute, nil)
		p.in("hostPath", "type").oneOf(h.Type, "", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket", "CharDevice", "BlockDevice")
	}
	if e := v.EmptyDir; e != nil {
		p.in("emptyDir", "medium").oneOf(e.Medium, "", "Memory")
		if e.Medium != "Memory" && !e.SizeLimit.IsZero() {
			p.in("emptyDir", "sizeLimit").say("is kept with medium Memory only")
		}
	}
	if c := v.ConfigMap; c != nil {
		p.in("configMap", "name").name(c.Name, CheckSubdomain, nil)
		c.Projection.validate(p.in("configMap"))
	}
	if s := v.Secret; s != nil {
		p.in("secret", "secretName").name(s.SecretName, CheckSubdomain, nil)
		s.Projection.validate(p.in("secret"))
	}
}

func (j *Projection) validate(p problems) {
	checkMode := func(p problems, mode *int32) {
		if mode != nil && (*mode < 0 || *mode > 0o777) {
			p.say("must be 0 to 0777 (511), got %d", *mode)
		}
	}
	checkMode(p.in("defaultMode"), j.DefaultMode)
	seen := map[string]bool{}
	for i, item := range j.Items {
		p := p.in("items", i)
		p.in("key").name(item.Key, checkConfigKey, nil)
		p.in("path").name(item.Path, checkRelative, seen)
		checkMode(p.in("mode"), item.Mode)
	}
}

// reservedTopics are the edge's own: an app gets at them by access to devices.
var reservedTopics = map[string]bool{"devices": true, "mappers": true, "whimbrel": true}

func (g *AccessGrant) validate(p problems) {
	if !p.exactlyOne(map[string]bool{"devices": !g.Devices.IsZero(), "topics": len(g.Topics) > 0, "routes": len(g.Routes) > 0}) {
		return
	}
	allowed, on := []string{VerbRead, VerbWrite}, "devices"
	switch {
	case len(g.Topics) > 0:
		allowed, on = []string{VerbPublish, VerbSubscribe}, "topics"
	case len(g.Routes) > 0:
		allowed, on = []string{VerbPublish}, "routes"
	}
	if len(g.Verbs) == 0 {
		p.in("verbs").say("is required: %s", strings.Join(allowed, ", "))
	}
	for i, v := range g.Verbs {
		p.in("verbs", i).oneOf(v, allowed...)
	}
	for i, n := range g.Devices.Names {
		p.in("devices", i).check(CheckLabelName(n))
	}
	for i, n := range g.Properties {
		if on != "devices" {
			p.in("properties").say("is of devices, not of %s", on)
			break
		}
		if !propertyName.MatchString(n) {
			p.in("properties", i).say("must be a property's name, got %s", quoteShort(n))
		}
	}
	for i, t := range g.Topics {
		p.in("topics", i).check(checkAppTopic(t))
	}
	for i, n := range g.Routes {
		p.in("routes", i).check(CheckSubdomain(n))
	}
}

// checkAppTopic says what is wrong with a topic filter that an app asks for. Its
// first level must be plain: "#" and "+/x" would reach the edge's own topics.
func checkAppTopic(filter string) string {
	levels := strings.Split(filter, "/")
	if filter == "" || len(filter) > 1024 || strings.ContainsRune(filter, 0) {
		return "must be an MQTT topic filter, got " + quoteShort(filter)
	}
	for i, l := range levels {
		if l != "#" && l != "+" && strings.ContainsAny(l, "#+") || l == "#" && i < len(levels)-1 {
			return "must be an MQTT topic filter: '+' and '#' stand alone between slashes, '#' at the end; got " + quoteShort(filter)
		}
	}
	switch first := levels[0]; {
	case first == "+" || first == "#":
		return "must begin with a plain level: everything is more than an app may have, got " + quoteShort(filter)
	case reservedTopics[first]:
		return first + "/… is the edge's own; ask for devices and verbs instead"
	case strings.HasPrefix(first, "$"):
		return "must not begin with $"
	}
	return ""
}
