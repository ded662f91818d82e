package edgeruntime

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/broker"
	"github.com/whimbrel-edge/whimbrel/internal/atomicfile"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/mqtt"
)

// The files in the data directory that hold secrets, mode 0600.
const (
	contextName = "context.json" // the local REST API: server, token, ca
	mqttName    = "mqtt.json"    // the MQTT broker's admin: url, username, password
)

// newSecret makes a random secret of 256 bits.
func newSecret() string {
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // never fails
	return base64.RawURLEncoding.EncodeToString(secret)
}

// readSecret reads a file of secrets into v; one that is not there leaves v as it is.
func readSecret(path string, v any) error {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read secrets: %w", err)
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("%s is not what an edge wrote (delete it to have a new one made): %w", path, err)
	}
	return nil
}

func writeSecret(path string, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return atomicfile.WriteFile(path, append(text, '\n'), 0o600)
}

// contextFile is how clients find the local API.
type contextFile struct {
	Server string `json:"server"`
	Token  string `json:"token"`
	CA     string `json:"ca"`
}

// apiToken returns the local API's token: the one there is, or a new one.
func apiToken(dir string) (string, error) {
	var c contextFile
	if err := readSecret(filepath.Join(dir, contextName), &c); err != nil {
		return "", err
	}
	if c.Token == "" {
		return newSecret(), nil
	}
	return c.Token, nil
}

// mqttFile is how whoever may read the data directory connects to the broker.
type mqttFile struct {
	URL      string `json:"url"`
	Username string `json:"username"`
	Password string `json:"password"`
}

// mqttCredentials returns the MQTT admin's credentials: those there are, or new
// ones.
func mqttCredentials(dir string) (mqttFile, error) {
	var f mqttFile
	if err := readSecret(filepath.Join(dir, mqttName), &f); err != nil {
		return f, err
	}
	if f.Username == "" || f.Password == "" {
		f.Username, f.Password = "admin", newSecret()
	}
	return f, nil
}

// mqttAuth knows the MQTT admin, and the clients that have a file.
type mqttAuth struct {
	dir                string // the edge's
	username, password [sha256.Size]byte
}

var _ broker.Authenticator = mqttAuth{}

func newMQTTAuth(dir string, f mqttFile) mqttAuth {
	return mqttAuth{dir, sha256.Sum256([]byte(f.Username)), sha256.Sum256([]byte(f.Password))}
}

// Authenticate implements broker.Authenticator.
func (a mqttAuth) Authenticate(username, password string) (broker.Identity, bool) {
	u, p := sha256.Sum256([]byte(username)), sha256.Sum256([]byte(password))
	if subtle.ConstantTimeCompare(u[:], a.username[:])&subtle.ConstantTimeCompare(p[:], a.password[:]) == 1 {
		return broker.Identity{Name: username, Admin: true}, true
	}
	var f clientFile
	if models.CheckLabelName(username) != "" || readSecret(clientPath(a.dir, username), &f) != nil {
		return broker.Identity{}, false
	}
	want, err := hex.DecodeString(f.PasswordSHA256)
	if err != nil || len(want) != sha256.Size || subtle.ConstantTimeCompare(p[:], want) != 1 {
		return broker.Identity{}, false
	}
	id := broker.Identity{Name: username, Current: func() bool { return a.current(username, f.PasswordSHA256) }}
	for _, r := range f.Rules {
		id.Rules = append(id.Rules, broker.Rule(r))
	}
	return id, true
}

// current reports whether a client's file is still there, with the same password.
// A file that cannot be read for another reason says nothing.
func (a mqttAuth) current(username, passwordSHA256 string) bool {
	text, err := os.ReadFile(clientPath(a.dir, username))
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist)
	}
	var f clientFile
	return json.Unmarshal(text, &f) != nil || f.PasswordSHA256 == passwordSHA256
}

// clientFile is a client of the broker that has credentials of its own: a file
// in clientsDir, called after its user name. The password itself is not kept.
type clientFile struct {
	PasswordSHA256 string       `json:"passwordSHA256"`
	Rules          []clientRule `json:"rules"`
}

// clientRule is a broker.Rule.
type clientRule struct {
	Filter    string `json:"filter"`
	Publish   bool   `json:"publish,omitempty"`
	Subscribe bool   `json:"subscribe,omitempty"`
}

// clientsDir is the folder of clientFiles in the data directory.
const clientsDir = "mqtt-clients"

func clientPath(dir, username string) string {
	return filepath.Join(dir, clientsDir, username+".json")
}

// Credential is what an MQTT client of the edge connects with.
type Credential struct {
	URL      string `json:"url,omitempty"` // of the broker, where that is known
	Username string `json:"username"`
	Password string `json:"password"`
}

// NewMapperCredential makes the credential of a mapper in a process of its own,
// for the edge that keeps its data in dir, running or not. It may use the topics
// of that mapper and no other. The password that the mapper had before no longer
// works: an edge that runs ends a connection made with it within a second or two.
func NewMapperCredential(dir, mapper string) (Credential, error) {
	if why := models.CheckLabelName("mapper-" + mapper); why != "" {
		return Credential{}, fmt.Errorf("mapper %q: the name %s", mapper, why)
	}
	var admin mqttFile
	path := filepath.Join(dir, mqttName)
	if err := readSecret(path, &admin); err != nil {
		return Credential{}, err
	}
	if admin.Username == "" {
		return Credential{}, fmt.Errorf("%s is not there: no edge keeps its data in %s", path, dir)
	}
	c := Credential{URL: admin.URL, Username: "mapper-" + mapper, Password: newSecret()}
	sum := sha256.Sum256([]byte(c.Password))
	own := mqtt.MapperTopic(mapper, "")
	f := clientFile{PasswordSHA256: hex.EncodeToString(sum[:]), Rules: []clientRule{
		{Filter: own + "+", Publish: true}, // of these, the broker lets mappers publish what is theirs to say
		{Filter: own + "#", Subscribe: true},
	}}
	if err := os.MkdirAll(filepath.Join(dir, clientsDir), 0o700); err != nil {
		return Credential{}, err
	}
	return c, writeSecret(clientPath(dir, c.Username), f)
}

// RemoveMapperCredential makes that the mapper can no longer connect. An edge that
// runs ends the connection that it has within a second or two.
func RemoveMapperCredential(dir, mapper string) error {
	err := os.Remove(clientPath(dir, "mapper-"+mapper))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("mapper %s has no credential", mapper)
	}
	return err
}
