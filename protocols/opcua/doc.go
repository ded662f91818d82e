// Package opcua is what OPC UA values, node ids and status codes are in
// Whimbrel's words: node ids as people write them, variants as models.Values and
// back, status codes as qualities and reasons. Sessions are gopcua's, and
// mappers/opcua's and simulators/opcuasim's to keep.
package opcua
