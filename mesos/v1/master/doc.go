// Package masterv1 is the generated v1 operator API of a master, with the
// calls that ClusterD added.
package masterv1
