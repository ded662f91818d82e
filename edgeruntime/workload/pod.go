package workload

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"strconv"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/engine"
	"github.com/whimbrel-edge/whimbrel/edgeruntime/store"
	"github.com/whimbrel-edge/whimbrel/models"
)

// The kinds of items that are for this package, besides Device, whose labels
// access is granted by.
const (
	kindPod       = "Pod"
	kindConfigMap = "ConfigMap"
	kindSecret    = "Secret"
)

// key names a slot, a ConfigMap or a Secret.
type key struct{ namespace, name string }

func (k key) String() string { return k.namespace + "/" + k.name }

// wanted is all that the hub wants of this package.
type wanted struct {
	pods       map[key]*models.Pod
	configMaps map[key]map[string][]byte
	secrets    map[key]map[string][]byte
	devices    map[key]map[string]string // labels
}

// compile reads the items. What cannot be read is left out, and said: it is of a
// hub that this release does not understand.
func compile(items []store.Item, log *slog.Logger) wanted {
	w := wanted{map[key]*models.Pod{}, map[key]map[string][]byte{}, map[key]map[string][]byte{}, map[key]map[string]string{}}
	for _, i := range items {
		k := key{i.Namespace, i.Name}
		var err error
		switch i.Kind {
		case kindPod:
			var p models.Pod
			if err = json.Unmarshal(i.JSON, &p); err == nil {
				p.Metadata.Namespace, p.Metadata.Name, p.Metadata.UID = i.Namespace, i.Name, i.UID
				p.Status = nil
				p.Default()
				if len(p.Spec.Containers) == 0 {
					err = fmt.Errorf("it has no containers")
					break
				}
				w.pods[k] = &p
			}
		case kindConfigMap:
			var c models.ConfigMap
			if err = json.Unmarshal(i.JSON, &c); err == nil {
				data := maps.Clone(c.BinaryData)
				if data == nil {
					data = map[string][]byte{}
				}
				for name, text := range c.Data {
					data[name] = []byte(text)
				}
				w.configMaps[k] = data
			}
		case kindSecret:
			var s struct {
				Data map[string][]byte `json:"data"`
			}
			if err = json.Unmarshal(i.JSON, &s); err == nil {
				w.secrets[k] = s.Data
			}
		case store.KindDevice:
			var d struct {
				Metadata struct {
					Labels map[string]string `json:"labels"`
				} `json:"metadata"`
			}
			if err = json.Unmarshal(i.JSON, &d); err == nil {
				w.devices[k] = d.Metadata.Labels
			}
		}
		if err != nil {
			log.Error("what the hub wants cannot be read; it is left out", "kind", i.Kind, "namespace", i.Namespace, "name", i.Name, "error", err)
		}
	}
	return w
}

// Endpoints are where apps find the edge.
type Endpoints struct{ MQTT, API string }

// hashOf is the name of a pod's generation: of what its containers are made from,
// and of the life of the edge's store, without which the credentials in them are
// worth nothing.
func hashOf(p *models.Pod, life string, e Endpoints) (string, error) {
	spec := p.Spec
	spec.Access = nil // is not in the containers, and can change under them
	of := []any{life, p.Metadata.UID, spec, e}
	if at := p.Metadata.Annotations[models.AnnotationRestartedAt]; at != "" {
		of = append(of, at)
	}
	text, err := json.Marshal(of)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])[:16], nil
}

// claims are what of the machine only one pod can have.
func claims(s *models.PodSpec) (out []Claim) {
	if s.HostNetwork {
		// What it listens on need not be declared.
		out = append(out, Claim{What: "network"})
	}
	for _, c := range s.Containers {
		for _, p := range c.Ports {
			port := p.HostPort
			if s.HostNetwork {
				port = p.ContainerPort
			}
			if port != 0 {
				out = append(out, Claim{What: p.Protocol + "/" + strconv.Itoa(int(port)), IP: p.HostIP})
			}
		}
	}
	for _, v := range s.Volumes {
		if v.HostPath != nil && isDevice(v.HostPath) {
			out = append(out, Claim{What: "device/" + v.HostPath.Path}) // two on one serial line garble it
		}
	}
	return out
}

func ports(s *models.PodSpec) (out []engine.Port) {
	for _, c := range s.Containers {
		for _, p := range c.Ports {
			protocol := "tcp"
			if p.Protocol == "UDP" {
				protocol = "udp"
			}
			out = append(out, engine.Port{HostIP: p.HostIP, Host: uint16(p.HostPort), Container: uint16(p.ContainerPort), Protocol: protocol})
		}
	}
	return out
}

// missing is an error about something that the hub has not sent, or that is not
// on this machine.
type missing string

func (m missing) Error() string { return string(m) }

// configs finds ConfigMaps and Secrets.
type configs interface {
	configMap(k key) (map[string][]byte, bool)
	secret(k key) (map[string][]byte, bool)
}

var envName = regexp.MustCompile(`^[-._a-zA-Z][-._a-zA-Z0-9]*$`)

// unfit says that a value cannot be a variable's. The engine would say so, too, but
// with the value in its words.
func unfit(what, name, key string) error {
	return missing(fmt.Sprintf("key %s of %s %s has a zero byte in it, which no variable can have: mount it as a file", key, what, name))
}

// environment is a container's variables, sorted by name. The edge's own win.
func environment(namespace string, c *models.Container, from configs, own map[string]string) ([]string, error) {
	env := map[string]string{}
	for _, e := range c.EnvFrom {
		data, found, what, ref := map[string][]byte(nil), false, "", e.ConfigMapRef
		if ref != nil {
			what = "ConfigMap"
			data, found = from.configMap(key{namespace, ref.Name})
		} else if ref = e.SecretRef; ref != nil {
			what = "Secret"
			data, found = from.secret(key{namespace, ref.Name})
		} else {
			continue
		}
		if !found && !ref.Optional {
			return nil, missing(fmt.Sprintf("there is no %s %s", what, ref.Name))
		}
		for name, value := range data {
			if !envName.MatchString(e.Prefix + name) {
				continue
			}
			if bytes.IndexByte(value, 0) >= 0 {
				if e.ConfigMapRef != nil {
					continue // out of binaryData, which is for files
				}
				return nil, unfit(what, ref.Name, name)
			}
			env[e.Prefix+name] = string(value)
		}
	}
	for _, e := range c.Env {
		if e.ValueFrom == nil {
			env[e.Name] = e.Value
			continue
		}
		data, found, what, ref := map[string][]byte(nil), false, "", e.ValueFrom.ConfigMapKeyRef
		if ref != nil {
			what = "ConfigMap"
			data, found = from.configMap(key{namespace, ref.Name})
		} else if ref = e.ValueFrom.SecretKeyRef; ref != nil {
			what = "Secret"
			data, found = from.secret(key{namespace, ref.Name})
		} else {
			continue
		}
		value, has := data[ref.Key]
		switch {
		case bytes.IndexByte(value, 0) >= 0:
			return nil, unfit(what, ref.Name, ref.Key)
		case has:
			env[e.Name] = string(value)
		case ref.Optional:
		case !found:
			return nil, missing(fmt.Sprintf("there is no %s %s", what, ref.Name))
		default:
			return nil, missing(fmt.Sprintf("%s %s has no key %s", what, ref.Name, ref.Key))
		}
	}
	maps.Copy(env, own)
	out := make([]string, 0, len(env))
	for _, name := range slices.Sorted(maps.Keys(env)) {
		out = append(out, name+"="+env[name])
	}
	return out, nil
}

// shares is the weight of a container's CPU request when CPU is short, on the
// scale of cgroups, where 1024 is one CPU.
func shares(c *models.Container) int64 {
	request := c.Resources.Requests.CPU
	if request.IsZero() {
		request = c.Resources.Limits.CPU
	}
	if request.IsZero() {
		return 0
	}
	return max(2, request.Milli()*1024/1000)
}
