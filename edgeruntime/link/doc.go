// Package link is the edge's end of the link to its hub: it joins, renews the
// node's certificate, keeps one WebSocket open, persists the wanted state that
// comes down, and sends the log and the latest values up. It never ends because
// of the network. (protocols/edgelink/FORMAT.md says who sends what when.)
package link
