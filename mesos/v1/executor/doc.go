// Package executorv1 is the generated v1 executor API: the calls of an
// executor and the events of an agent.
package executorv1
