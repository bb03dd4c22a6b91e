// Hello is the smallest web application: it says which container answers.
// "hello who" prints that and ends; "hello get URL" prints what another answers;
// "hello burn 30s" keeps a CPU busy for so long.
package main

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

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
	if len(os.Args) == 3 && os.Args[1] == "get" {
		if err := get(os.Args[2]); err != nil {
			log.Fatalf("hello: %v", err)
		}
		return
	}
	if len(os.Args) == 3 && os.Args[1] == "burn" {
		if err := burn(os.Args[2]); err != nil {
			log.Fatalf("hello: %v", err)
		}
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

// burn does nothing, as fast as it can.
func burn(long string) error {
	d, err := time.ParseDuration(long)
	if err != nil {
		return err
	}
	for end := time.Now().Add(d); time.Now().Before(end); {
		continue
	}
	return nil
}

// get prints the answer of another server; one that cannot be reached is an
// error after a few seconds.
func get(url string) error {
	client := http.Client{Timeout: 3 * time.Second}
	resp, err := client.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(os.Stdout, io.LimitReader(resp.Body, 1<<20))
	return err
}
