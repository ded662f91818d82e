package registry

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/internal/pki"
	"github.com/whimbrel-edge/whimbrel/models"
)

// sealedSecret is a Secret as it is stored: its values in one sealed piece.
type sealedSecret struct {
	models.TypeMeta
	Metadata models.ObjectMeta `json:"metadata"`
	Type     string            `json:"type,omitempty"`
	Sealed   []byte            `json:"sealed"` // of the values as JSON, by pki.Seal
}

// sealContext ties sealed values to the object that they are of: copied into
// another row they do not open.
func sealContext(key models.Key, uid string) []byte {
	return []byte("whimbrel/object/" + key.Kind + "/" + key.Namespace + "/" + key.Name + "/" + uid)
}

// storedForm is what the database gets of an object: what is secret in it is
// sealed. text is the object as JSON.
func (r *Registry) storedForm(o models.Object, uid string, text []byte) ([]byte, error) {
	secret, ok := o.(*models.Secret)
	if !ok {
		return text, nil
	}
	values, err := json.Marshal(secret.Data)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", models.KeyOf(o), err)
	}
	sealed, err := pki.Seal(r.key, values, sealContext(models.KeyOf(o), uid))
	if err != nil {
		return nil, fmt.Errorf("seal %s: %w", models.KeyOf(o), err)
	}
	meta := secret.Metadata
	meta.UID, meta.Generation, meta.ResourceVersion, meta.CreationTimestamp = "", 0, "", nil // columns of their own
	return json.Marshal(sealedSecret{TypeMeta: secret.TypeMeta, Metadata: meta, Type: secret.SecretType, Sealed: sealed})
}

// unseal is the way back: the object's JSON, and whether an older key had sealed
// it. fresh is then what is to be stored instead.
func unseal(key pki.SealKey, o store.Object) (text, fresh []byte, err error) {
	if o.Kind != "Secret" {
		return o.JSON, nil, nil
	}
	var stored sealedSecret
	if err := json.Unmarshal(o.JSON, &stored); err != nil {
		return nil, nil, err
	}
	at := sealContext(models.Key{Kind: o.Kind, Namespace: o.Namespace, Name: o.Name}, o.UID)
	values, err := pki.Open(key, stored.Sealed, at)
	if err != nil {
		return nil, nil, err
	}
	secret := models.Secret{TypeMeta: stored.TypeMeta, Metadata: stored.Metadata, SecretType: stored.Type}
	if err := json.Unmarshal(values, &secret.Data); err != nil {
		return nil, nil, fmt.Errorf("sealed values: %w", err)
	}
	if text, err = json.Marshal(&secret); err != nil {
		return nil, nil, err
	}
	again, changed, err := pki.Reseal(key, stored.Sealed, at)
	if err != nil || !changed {
		return text, nil, err
	}
	stored.Sealed = again
	fresh, err = json.Marshal(stored)
	return text, fresh, err
}

// reseal stores what an older key had sealed. To everybody else nothing has
// changed: the objects keep their revisions.
func (r *Registry) reseal(ctx context.Context, stale []store.Object) error {
	if len(stale) == 0 {
		return nil
	}
	if err := r.store.Commit(ctx, store.Commit{Revision: r.revision + 1, Put: stale}); err != nil {
		return fmt.Errorf("seal secrets with the new key: %w", err)
	}
	r.revision++
	r.floor, r.opened = r.revision, r.revision
	r.log.Info("secrets are sealed with the first key of the key file now", "secrets", len(stale))
	return nil
}
