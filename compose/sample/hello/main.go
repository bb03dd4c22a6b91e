// Hello is the smallest web application: it says which container answers.
package main

import (
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"

	"github.com/mesopool/mesopool/compose/sample/catalog"
)

func main() {
	name, _ := os.Hostname()
	ip, err := catalog.OwnIP()
	if err != nil {
		log.Fatalf("hello: %v", err)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-stop
		log.Print("hello: told to stop")
		os.Exit(0)
	}()
	http.HandleFunc("GET /", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "Hello from %s at %s (task %s)\n", name, ip, os.Getenv("MESOS_TASK_ID"))
	})
	log.Printf("hello: %s serves at http://%s/", name, ip)
	log.Fatalf("hello: %v", http.ListenAndServe(":80", nil))
}
