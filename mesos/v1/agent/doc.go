// Package agentv1 is the generated v1 operator API of an agent, with the calls
// that ClusterD added.
package agentv1
