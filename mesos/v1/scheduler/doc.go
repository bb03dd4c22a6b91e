// Package schedulerv1 is the generated v1 scheduler API: the calls of a
// framework and the events of a master.
package schedulerv1
