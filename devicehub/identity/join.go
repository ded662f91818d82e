package identity

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/whimbrel-edge/whimbrel/internal/pki"
)

const (
	// DefaultJoinTTL is how long a join token is good for unless asked otherwise.
	DefaultJoinTTL = time.Hour
	// joinRetry is how long after a join the same edge may fetch its answer again.
	joinRetry = 10 * time.Minute
	// keepJoinTokens is how long they stay listed after they expired.
	keepJoinTokens = 7 * 24 * time.Hour
)

// CreateJoinToken invites a node. The text is not kept anywhere: it is returned here
// and never again. The Node need not exist; joining makes it. A zero ttl
// means DefaultJoinTTL.
func (s *Service) CreateJoinToken(ctx context.Context, node string, ttl time.Duration, by string) (text string, rec JoinToken, err error) {
	if err := pki.CheckNodeName(node); err != nil {
		return "", JoinToken{}, err
	}
	if ttl < 0 {
		return "", JoinToken{}, fmt.Errorf("a join token cannot live for %s", ttl)
	}
	if ttl == 0 {
		ttl = DefaultJoinTTL
	}
	now := s.config.Now()
	id, err := newID(now)
	if err != nil {
		return "", JoinToken{}, err
	}
	// Making one is rare and by hand: a good moment to tidy up.
	if _, err := s.config.Stores.JoinTokens.PruneJoinTokens(ctx, now.Add(-keepJoinTokens)); err != nil {
		return "", JoinToken{}, fmt.Errorf("prune join tokens: %w", err)
	}
	token := pki.NewJoinToken(s.config.CA.Hash())
	rec = JoinToken{ID: id, Hash: token.SecretHash(), Node: node, CreatedBy: by, Created: now, Expires: now.Add(ttl)}
	if err := s.config.Stores.JoinTokens.CreateJoinToken(ctx, rec); err != nil {
		return "", JoinToken{}, fmt.Errorf("keep join token: %w", err)
	}
	rec.Hash = ""
	return token.Encode(), rec, nil
}

// JoinTokens lists all that are still of interest, oldest first, without hashes.
func (s *Service) JoinTokens(ctx context.Context) ([]JoinToken, error) {
	tokens, err := s.config.Stores.JoinTokens.JoinTokens(ctx)
	if err != nil {
		return nil, fmt.Errorf("list join tokens: %w", err)
	}
	for i := range tokens {
		tokens[i].Hash = ""
	}
	return tokens, nil
}

// DeleteJoinToken withdraws an invitation, or returns ErrNotFound.
func (s *Service) DeleteJoinToken(ctx context.Context, id string) error {
	if err := s.config.Stores.JoinTokens.DeleteJoinToken(ctx, id); err != nil {
		return fmt.Errorf("delete join token: %w", err)
	}
	return nil
}

// A JoinRequest is what an edge without a certificate sends.
type JoinRequest struct {
	Token  string
	Node   string
	CSR    []byte // PEM, for the node's name
	Remote string // its address; wrong tokens are counted by it
}

// Join admits a node for a join token and issues its first certificate. The Node is
// made if there is none; one that is there keeps its UID, and the key it had is
// no longer good.
//
// Refusals are pki.ErrJoinToken, ErrTokenUnknown, ErrTokenWrongNode, ErrTokenUsed,
// ErrTokenExpired, ErrRequest (which does not use up the token) and *ThrottledError.
// Any further error is a fault of the store; the token may then be used up.
//
// A token admits once. Only the edge that it admitted, known by its key, may ask
// again for a few minutes, as the first answer may be lost on the way.
func (s *Service) Join(ctx context.Context, r JoinRequest) (Issued, error) {
	if err := s.admit(r.Remote); err != nil {
		return Issued{}, err
	}
	refused := Event{Reason: JoinRefused, Remote: r.Remote, Node: r.Node}
	token, err := pki.ParseJoinToken(r.Token)
	if err != nil {
		return Issued{}, s.refuse(ctx, refused, err)
	}
	csr, err := pki.CheckCSR(r.CSR, r.Node)
	if err != nil {
		return Issued{}, s.refuse(ctx, refused, fmt.Errorf("%w: %w", ErrRequest, err))
	}
	now := s.config.Now()
	rec, err := s.config.Stores.JoinTokens.RedeemJoinToken(ctx, Redemption{
		Hash: token.SecretHash(), Node: r.Node, KeyHash: csr.KeyHash, Now: now,
	})
	switch {
	case err == nil:
		return s.enroll(ctx, r, csr)
	case errors.Is(err, ErrTokenUsed) && rec.UsedKey == csr.KeyHash && now.Sub(rec.UsedAt) < joinRetry:
		// The record decides: were the node deleted or joined with another key since,
		// answering would undo that.
		node, nodeErr := s.config.Stores.Nodes.NodeRecord(ctx, r.Node)
		if nodeErr == nil && node.Keys.Current == csr.KeyHash {
			return s.issue(csr, node.UID)
		}
		if nodeErr != nil && !errors.Is(nodeErr, ErrNotFound) {
			return Issued{}, fmt.Errorf("join node %s: %w", r.Node, nodeErr)
		}
		return Issued{}, s.refuse(ctx, refused, err)
	case errors.Is(err, ErrTokenUnknown), errors.Is(err, ErrTokenWrongNode),
		errors.Is(err, ErrTokenUsed), errors.Is(err, ErrTokenExpired):
		return Issued{}, s.refuse(ctx, refused, err)
	default:
		return Issued{}, fmt.Errorf("join node %s: %w", r.Node, err)
	}
}

// enroll makes the redeemed invitation good.
func (s *Service) enroll(ctx context.Context, r JoinRequest, csr *pki.NodeCSR) (Issued, error) {
	before, err := s.config.Stores.Nodes.NodeRecord(ctx, r.Node)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return Issued{}, fmt.Errorf("join node %s: %w", r.Node, err)
	}
	node, err := s.config.Stores.Nodes.EnrollNode(ctx, r.Node, csr.KeyHash)
	if err != nil {
		return Issued{}, fmt.Errorf("join node %s: %w", r.Node, err)
	}
	issued, err := s.issue(csr, node.UID)
	if err != nil {
		return Issued{}, err
	}
	event := Event{Reason: NodeJoined, Remote: r.Remote, Node: r.Node, Message: "joined with key " + csr.KeyHash}
	if before.Keys.Current != "" && before.Keys.Current != csr.KeyHash {
		event.Reason = NodeKeyReplaced
		event.Message = fmt.Sprintf("joined again; key %s replaces %s", csr.KeyHash, before.Keys.Current)
	}
	s.record(ctx, event)
	return issued, nil
}
