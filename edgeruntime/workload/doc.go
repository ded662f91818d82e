// Package workload runs the pods of an edge: containers that the hub wants here,
// kept by the edge alone once it has been told. A Manager makes what the
// container engine runs equal to what the store holds; each pod's name is a
// slot, in which one generation of the pod takes the place of another.
//
// The loops:
//
//	Manager.Run    finds the engine, lists containers, starts and ends slots
//	events         one per session with the engine: says when to list again
//	slot.run       one per pod's name: decides (Decide) and does the next step
//	prober.run     one per container that runs and has probes
//	slot.fetch     one per image that a slot waits for
//
// What the engine has is found again by label, so that a restart of the edge, of
// the engine or of the machine changes nothing but the time. What is to survive
// them besides, such as which generation has served and the credentials of
// apps, is in the edge's store.
//
// Only edgeruntime imports it.
package workload
