// Command mesopool is the whole of Mesopool: master, virtual agent, service
// scheduler, and the command line to use them.
package main

import (
	"os"

	"github.com/mesopool/mesopool/internal/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:], os.Stdout, os.Stderr)) }
