// Hello is the smallest web application: it says which container answers.
// "hello who" prints that and ends.
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
	who := fmt.Sprintf("Hello from %s at %s (task %s)\n", name, ip, os.Getenv("MESOS_TASK_ID"))
	if len(os.Args) == 2 && os.Args[1] == "who" {
		fmt.Print(who)
		return
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-stop
		log.Print("hello: told to stop")
		os.Exit(0)
	}()
	http.HandleFunc("GET /", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, who)
	})
	log.Printf("hello: %s serves at http://%s/", name, ip)
	log.Fatalf("hello: %v", http.ListenAndServe(":80", nil))
}
