package edgeruntime

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/broker"
	"github.com/whimbrel-edge/whimbrel/internal/atomicfile"
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

// mqttAuth knows the MQTT admin.
type mqttAuth struct{ username, password [sha256.Size]byte }

var _ broker.Authenticator = mqttAuth{}

func newMQTTAuth(f mqttFile) mqttAuth {
	return mqttAuth{sha256.Sum256([]byte(f.Username)), sha256.Sum256([]byte(f.Password))}
}

// Authenticate implements broker.Authenticator.
func (a mqttAuth) Authenticate(username, password string) (broker.Identity, bool) {
	u, p := sha256.Sum256([]byte(username)), sha256.Sum256([]byte(password))
	if subtle.ConstantTimeCompare(u[:], a.username[:])&subtle.ConstantTimeCompare(p[:], a.password[:]) != 1 {
		return broker.Identity{}, false
	}
	return broker.Identity{Name: username, Admin: true}, true
}
