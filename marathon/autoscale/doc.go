// Package autoscale says how many instances something should have, from what
// those that it has use. It is arithmetic: no clock, no I/O, no names of apps.
//
//	rate, known := gauge.Rate(count)             // for each counter of an instance
//	advice := scaler.Decide(now, rules, n, loads) // advice.Instances may be n
//	scaler.Restart(now)                          // whenever n was changed, by whomever
//
// The arithmetic is the published one of Kubernetes' HorizontalPodAutoscaler: as
// many instances as bring each to its target. Of what was not measured, the
// better is assumed when there is to be more, and the worse when there is to be
// less; where nothing was measured, nothing is changed.
package autoscale
