// Package detect finds the leading master from what an operator writes after
// --master: host:port, a list of those, file:///path, zk://…/path or
// consul://…/service. It knows nothing of agents or frameworks.
//
//	d, err := detect.New("zk://a,b,c/mesos", detect.Options{})
//	defer d.Close()
//	master, err := d.UPID(ctx)    // for link.Config.Master
//	address, err := d.Address(ctx) // for scheduler.Config.Master
package detect
