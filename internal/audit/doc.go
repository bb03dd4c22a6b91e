// Package audit says what must be true of a whole cluster, whoever tells about
// it: the simulator, which sees inside the cores, or the live APIs.
//
//	c := audit.Cluster{Containers: …, Agents: …, Master: …, Apps: …}
//	c.Broken()    // is never true of any cluster, whatever fails
//	c.Unsettled() // is not true any more once everything works again
package audit
