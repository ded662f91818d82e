package edgelink

// Capability numbers. An edge and a hub meet at the lower of theirs. A number
// and what it means never change; FORMAT.md lists them with their dates.
const (
	// Capability1, of 2026-11-22: frames, records, epochs and lineage as
	// FORMAT.md first described them.
	Capability1 uint32 = 1

	// Capability is the highest number this release speaks.
	Capability = Capability1
)

// Capabilities returns the named capabilities this release has beside the
// methods of requests, for hello and welcome.
func Capabilities() []string { return []string{CapabilityRoutes, CapabilitySecrets} }

// CapabilityRoutes is of both ends: they exchange RouteMessages, RouteAcks,
// RouteReply and RouteCounts, and the edge takes items of the kind Route.
const CapabilityRoutes = "routes"

// CapabilitySecrets is of an edge that takes items of the kind Secret, and
// keeps them sealed.
const CapabilitySecrets = "secrets"

// CapabilityWorkloads is of an edge that runs pods: it takes items of the kinds
// Pod, ConfigMap, Secret and Service, and sends PodStatuses.
const CapabilityWorkloads = "workloads"

// CapabilityServicePod is of an edge that connects a stream of the kind service
// with the pod that its header names, and with no other.
const CapabilityServicePod = "service-pod"

// MaxPodStatus bounds one pod's status in PodStatuses. The hub leaves a longer
// one out; what a container says of its end is cut by the edge.
const MaxPodStatus = 64 << 10

// MaxMappers bounds the drivers that an edge announces in a session, and
// MaxMapperSchema each of their schemas.
const (
	MaxMappers      = 512
	MaxMapperSchema = 256 << 10
)

// Meet returns the number both ends can honour. An end that says 0 says
// nothing of use: it is no Whimbrel link.
func Meet(ours, theirs uint32) uint32 { return min(ours, theirs) }

// Paths on the hub's link server.
const (
	PathJoin  = "/join"
	PathRenew = "/renew"
	PathLink  = "/link"
	PathBulk  = "/bulk"
)

// HeaderEpoch is the header of a request to PathBulk that says which link it
// belongs to: its Hello's current epoch.
const HeaderEpoch = "Whimbrel-Epoch"

// BulkSubprotocol is the WebSocket subprotocol of PathBulk.
const BulkSubprotocol = "whimbrel.edgelink.bulk.v1"

// Subprotocol is the WebSocket subprotocol of PathLink.
const Subprotocol = "whimbrel.edgelink.v1"

// Reasons of a Goodbye.
const (
	GoodbyeShutdown          = "shutdown"           // the sender stops or restarts
	GoodbyeRevoked           = "revoked"            // the Node is gone: joining anew is the only way
	GoodbyeDuplicateIdentity = "duplicate-identity" // another session has the same node
	GoodbyeProtocolError     = "protocol-error"     // the other end broke FORMAT.md
	GoodbyeReplaced          = "replaced"           // the same edge has connected again
)

// Reasons of a Gap.
const (
	GapOutboxFull      = "outbox-full"       // dropped at the edge, oldest first, to stay within the outbox's bytes
	GapOutboxAge       = "outbox-age"        // dropped at the edge because they were older than the outbox may keep
	GapDiskFull        = "disk-full"         // never stored: the edge's disk was full or failed; the seqs are 0
	GapUnreadable      = "unreadable"        // stored, and damaged since
	GapLogEpochChanged = "log-epoch-changed" // the edge's log was restored from a copy or replaced
	GapHubRestored     = "hub-restored"      // the hub acknowledged it and then went back to an older copy
)

// RevokedStatus is the HTTP status of PathLink and PathRenew for a node that has
// been deleted; the body is a problem document, as of every refusal.
const RevokedStatus = 403
