// Command helper is the only program in the tests' images. Its arguments say
// what it does, in order: lines=N, serve, get=URL, cat, run, exit=N.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	for _, arg := range os.Args[1:] {
		name, value, _ := strings.Cut(arg, "=")
		n, _ := strconv.Atoi(value)
		switch name {
		case "lines":
			for i := 1; i <= n; i++ {
				fmt.Printf("out %d\n", i)
				fmt.Fprintf(os.Stderr, "err %d\n", i)
			}
		case "serve":
			go http.ListenAndServe(":80", http.NotFoundHandler())
		case "get":
			c := http.Client{Timeout: 2 * time.Second}
			resp, err := c.Get(value)
			if err != nil {
				fmt.Println(err)
				os.Exit(1)
			}
			resp.Body.Close()
		case "cat":
			io.Copy(os.Stdout, os.Stdin)
		case "run":
			<-stop
			os.Exit(0)
		case "exit":
			os.Exit(n)
		default:
			fmt.Fprintln(os.Stderr, "helper: unknown argument", arg)
			os.Exit(2)
		}
	}
}
