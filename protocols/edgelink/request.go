package edgelink

import (
	"encoding/json"

	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
)

// Bounds of requests; FORMAT.md says what happens beyond them.
const (
	MaxRequests = 32       // that one edge answers at a time
	MaxPart     = 1 << 20  // bytes of a request's body, and of one part of an answer
	PartBytes   = 64 << 10 // as much as a part of a long answer should have: on a slow uplink nothing else is sent meanwhile
	MaxCredit   = 64       // parts that may be on their way
)

// Methods of requests. Each is a named capability of an edge that answers it.
const (
	MethodRead   = "device.read"
	MethodRecord = "device.record"
	MethodBrowse = "device.browse"
	// MethodBulk asks the edge to open the second connection, package bulk; the answer
	// has no body and comes when it is open.
	MethodBulk = "bulk.open"
)

// Methods returns the methods this release knows.
func Methods() []string { return []string{MethodRead, MethodRecord, MethodBrowse, MethodBulk} }

// ReadRequest is the body of a MethodRead.
type ReadRequest struct {
	Device     string   `json:"device"`               // its uid
	Properties []string `json:"properties,omitempty"` // none: all that can be read and may leave the edge
}

// RecordRequest is the body of a MethodRecord. The answer's parts are the lines
// of a recording (protocols/recording), whole ones, as they come.
type RecordRequest struct {
	Device string          `json:"device"` // its uid
	For    models.Duration `json:"for"`
}

// ReadResponse is its answer.
type ReadResponse struct {
	Properties map[string]models.Reading `json:"properties"`
}

// BrowseRequest is the body of a MethodBrowse.
type BrowseRequest struct {
	Device string `json:"device"` // its uid
}

// BrowseResponse is one part of its answer.
type BrowseResponse struct {
	Found []models.Found `json:"found,omitempty"`
}

// FinalResponse is the last part of an answer; err is why the request failed,
// nil when it did not.
func FinalResponse(body []byte, err error) *pb.Response {
	r := &pb.Response{Body: body, Final: true}
	if err != nil {
		text, jsonErr := json.Marshal(models.ProblemOf(err))
		if jsonErr != nil { // cannot be: a Problem has no value that JSON has not
			text = []byte(`{"status":500}`)
		}
		r.Body, r.Problem = nil, text
	}
	return r
}

// ResponseErr is why a request failed as its last part says, nil when it did not.
func ResponseErr(r *pb.Response) error {
	if len(r.Problem) == 0 {
		return nil
	}
	var p models.Problem
	if err := json.Unmarshal(r.Problem, &p); err != nil {
		return malformed("problem of a response: %v", err)
	}
	return p.Err()
}
