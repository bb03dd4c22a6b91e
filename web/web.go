package web

import (
	"bytes"
	"context"
	"embed"
	"fmt"
	"html/template"
	"net/http"
	"strings"
	"time"
)

//go:embed templates
var files embed.FS

var templates = template.Must(template.New("").Funcs(template.FuncMap{
	"ago": ago, "short": short, "num": num, "lower": strings.ToLower,
}).ParseFS(files, "templates/*.html"))

// MostTasks is how many tasks the master's page lists.
const MostTasks = 200

// MasterPage serves the master's page. look returns what to show, with the
// tasks whose ID, name or state holds the filter.
func MasterPage(look func(ctx context.Context, filter string) (*Cluster, error)) http.Handler {
	return pages("master", func(r *http.Request) (any, error) { return look(r.Context(), r.URL.Query().Get("q")) })
}

// MarathonPage serves Marathon's page.
func MarathonPage(look func(context.Context) (*Services, error)) http.Handler {
	return pages("marathon", func(r *http.Request) (any, error) { return look(r.Context()) })
}

// pages serves one page at / (and /ui/), and its changing part at /live.
func pages(name string, look func(*http.Request) (any, error)) http.Handler {
	mux := http.NewServeMux()
	whole := func(w http.ResponseWriter, r *http.Request) { page(w, r, name, look) }
	mux.HandleFunc("GET /{$}", whole)
	mux.HandleFunc("GET /ui/", whole)
	mux.HandleFunc("GET /live", func(w http.ResponseWriter, r *http.Request) { live(w, r, name, look) })
	return mux
}

func page(w http.ResponseWriter, r *http.Request, name string, look func(*http.Request) (any, error)) {
	view, err := look(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	var b bytes.Buffer
	if err := templates.ExecuteTemplate(&b, name+".html", view); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'")
	h.Set("X-Content-Type-Options", "nosniff")
	w.Write(b.Bytes())
}

// live sends the changing part of a page whenever it has changed.
func live(w http.ResponseWriter, r *http.Request, name string, look func(*http.Request) (any, error)) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-cache")
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var last []byte
	for quiet := 0; ; quiet++ {
		view, err := look(r)
		if err != nil {
			return
		}
		var b bytes.Buffer
		if err := templates.ExecuteTemplate(&b, name+"-live", view); err != nil {
			return
		}
		if !bytes.Equal(b.Bytes(), last) {
			last = b.Bytes()
			if sendEvent(w, last) != nil {
				return
			}
		} else if quiet%15 == 14 {
			fmt.Fprint(w, ": still here\n\n")
		}
		if http.NewResponseController(w).Flush() != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-tick.C:
		}
	}
}

func sendEvent(w http.ResponseWriter, html []byte) error {
	var b bytes.Buffer
	for line := range bytes.Lines(html) {
		b.WriteString("data: ")
		b.Write(bytes.TrimRight(line, "\n"))
		b.WriteByte('\n')
	}
	b.WriteByte('\n')
	_, err := w.Write(b.Bytes())
	return err
}

// ago says how long ago a time was, in words that change rarely, so that a
// page that has not changed is not sent again every second.
func ago(t time.Time) string {
	if t.IsZero() {
		return "–"
	}
	switch d := time.Since(t); {
	case d < time.Minute:
		return "now"
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	default:
		return fmt.Sprintf("%d d", int(d.Hours()/24))
	}
}

// short keeps the end of a long ID, which is what tells it apart.
func short(id string) string {
	if len(id) <= 14 {
		return id
	}
	return "…" + id[len(id)-12:]
}

// num prints an amount: 0.1, 4, 240k, 1.5M, 2G.
func num(v float64) string {
	switch {
	case v >= 1e9:
		return trim(v/1e9) + "G"
	case v >= 1e6:
		return trim(v/1e6) + "M"
	case v >= 1e4:
		return trim(v/1e3) + "k"
	default:
		return trim(v)
	}
}

func trim(v float64) string {
	s := fmt.Sprintf("%.2f", v)
	return strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
}
