// Package mqtt knows MQTT's topics, not its packets: which topic names and
// filters are valid, which filter matches which name, and how Whimbrel's own
// topics under devices/ are built and read. Sections cited are those of "MQTT
// Version 5.0", OASIS Standard; 3.1.1 has the same rules.
package mqtt
