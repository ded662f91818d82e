package identity

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/whimbrel-edge/whimbrel/internal/pki"
)

// caSecret is the key of the CA among the secrets.
const caSecret = "ca"

// EnsureCA returns the hub's CA from the secrets, or makes it at the first start.
// Of several hubs that start at once on one database, one makes it and all
// get the same. A CA that the key does not open is an error (pki.ErrUnseal) and never
// replaced: every edge in the field trusts it.
func EnsureCA(ctx context.Context, secrets Secrets, key pki.SealKey, now time.Time) (*pki.CA, error) {
	ca, err := loadCA(ctx, secrets, key)
	if !errors.Is(err, ErrNotFound) {
		return ca, err
	}
	ca, err = pki.NewCA(now)
	if err != nil {
		return nil, err
	}
	plain, err := ca.EncodePEM()
	if err != nil {
		return nil, err
	}
	sealed, err := pki.Seal(key, plain, sealContext(caSecret))
	if err != nil {
		return nil, err
	}
	err = secrets.SwapSecret(ctx, caSecret, nil, sealed)
	if errors.Is(err, ErrConflict) {
		return loadCA(ctx, secrets, key)
	}
	if err != nil {
		return nil, fmt.Errorf("keep the CA: %w", err)
	}
	return ca, nil
}

func loadCA(ctx context.Context, secrets Secrets, key pki.SealKey) (*pki.CA, error) {
	sealed, err := secrets.Secret(ctx, caSecret)
	if err != nil {
		return nil, fmt.Errorf("load the CA: %w", err)
	}
	plain, err := pki.Open(key, sealed, sealContext(caSecret))
	if err != nil {
		return nil, fmt.Errorf("load the CA: %w", err)
	}
	// A key file with a new first key takes over here.
	fresh, changed, err := pki.Reseal(key, sealed, sealContext(caSecret))
	if err == nil && changed {
		err = secrets.SwapSecret(ctx, caSecret, sealed, fresh)
	}
	if err != nil && !errors.Is(err, ErrConflict) { // another hub of the same database was quicker
		return nil, fmt.Errorf("seal the CA with the new key: %w", err)
	}
	return pki.ParseCA(plain)
}

// sealContext ties a sealed secret to its name.
func sealContext(key string) []byte { return []byte("whimbrel/secret/" + key) }
