package edgelink

// JoinRequest is the body of POST /join, the only request without a client
// certificate.
type JoinRequest struct {
	Token  string            `json:"token"`
	Node   string            `json:"node"`
	CSR    string            `json:"csr"` // PEM
	Labels map[string]string `json:"labels,omitempty"`
}

// JoinResponse is its answer.
type JoinResponse struct {
	Certificate string `json:"certificate"` // PEM, the node's
	CA          string `json:"ca"`          // PEM, the hub's authorities: more than one while they change over
	NodeUID     string `json:"nodeUID"`
	Lineage     string `json:"lineage,omitempty"` // of the hub's database
}

// RenewRequest is the body of POST /renew. The client certificate, which may
// have expired, says whose.
type RenewRequest struct {
	CSR string `json:"csr"` // PEM
}

// RenewResponse is its answer.
type RenewResponse struct {
	Certificate string `json:"certificate"` // PEM
	CA          string `json:"ca"`          // PEM
}
